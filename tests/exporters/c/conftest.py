from tests.digits_run import digits_run

__all__ = ["digits_run"]
