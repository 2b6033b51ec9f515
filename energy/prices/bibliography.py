"""BibTeX entries of the sources of prices and models."""

from __future__ import annotations

from collections.abc import Iterable

ENTRIES: dict[str, str] = {
    "horowitz2014": """@inproceedings{horowitz2014,
  author    = {Horowitz, Mark},
  title     = {1.1 Computing's energy problem (and what we can do about it)},
  booktitle = {IEEE International Solid-State Circuits Conference (ISSCC)},
  year      = {2014},
  pages     = {10--14},
  doi       = {10.1109/ISSCC.2014.6757323},
}""",
    "jouppi2021": """@inproceedings{jouppi2021,
  author    = {Jouppi, Norman P. and others},
  title     = {Ten Lessons From Three Generations Shaped {Google's} {TPUv4i}},
  booktitle = {ACM/IEEE International Symposium on Computer Architecture (ISCA)},
  year      = {2021},
  pages     = {1--14},
  doi       = {10.1109/ISCA52012.2021.00010},
}""",
    "davies2018": """@article{davies2018,
  author  = {Davies, Mike and others},
  title   = {Loihi: A Neuromorphic Manycore Processor with On-Chip Learning},
  journal = {IEEE Micro},
  volume  = {38},
  number  = {1},
  pages   = {82--99},
  year    = {2018},
  doi     = {10.1109/MM.2018.112130359},
}""",
    "boyle2025": """@article{boyle2025,
  author  = {Boyle, James A. and others},
  title   = {{SANA-FE}: Simulating Advanced Neuromorphic Architectures for Fast Exploration},
  journal = {IEEE Transactions on Computer-Aided Design of Integrated Circuits and Systems},
  volume  = {44},
  number  = {8},
  year    = {2025},
}""",
    "ostrau2022": """@article{ostrau2022,
  author  = {Ostrau, Christoph and others},
  title   = {Benchmarking Neuromorphic Hardware and Its Energy Expenditure},
  journal = {Frontiers in Neuroscience},
  volume  = {16},
  pages   = {873935},
  year    = {2022},
  doi     = {10.3389/fnins.2022.873935},
}""",
    "blouw2019": """@inproceedings{blouw2019,
  author    = {Blouw, Peter and Choo, Xuan and Hunsberger, Eric and Eliasmith, Chris},
  title     = {Benchmarking Keyword Spotting Efficiency on Neuromorphic Hardware},
  booktitle = {Neuro-inspired Computational Elements Workshop (NICE)},
  year      = {2019},
  note      = {arXiv:1812.01739},
}""",
}
"""Key to entry."""

_CITED: dict[str, tuple[str, ...]] = {
    "horowitz45_fp32": ("horowitz2014", "jouppi2021"),
    "horowitz45_int8": ("horowitz2014", "jouppi2021"),
    "horowitz45_int8_acc32": ("horowitz2014", "jouppi2021"),
    "jouppi7_fp32": ("jouppi2021",),
    "jouppi7_int8_acc32": ("jouppi2021",),
    "loihi1_davies2018": ("davies2018",),
    "loihi1_sanafe": ("boyle2025",),
    "spinnaker1_board": ("ostrau2022",),
    "loihi1": ("blouw2019", "davies2018", "boyle2025"),
}


def cited(names: Iterable[str]) -> tuple[str, ...]:
    """Return the BibTeX keys of price lists and chips, each once; those without an entry have none."""
    return tuple(dict.fromkeys(key for name in names for key in _CITED.get(name, ())))
