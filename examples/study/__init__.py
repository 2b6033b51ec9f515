"""The study: do learned thresholds help? Eight parts, each resumable, from their configurations to tables and figures.

python -m examples.study full --data-dir DIR     the one that REPORT.md reports (make study)
python -m examples.study small                   a reduced one on digits, a few minutes (make study-small)
"""
