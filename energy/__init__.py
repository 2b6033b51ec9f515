"""Counts, joules and the report."""

from stl_deploy.energy.count import ActivityCounter
from stl_deploy.energy.knobs import WhatIf, what_if
from stl_deploy.energy.measure import EnergyReport, energy_report, energy_schema, measure_energy
from stl_deploy.energy.pricelist import PriceList, list_prices, load_prices
from stl_deploy.energy.stream import count_stream
from stl_deploy.energy.twin import AnnTwin
from stl_deploy.energy.validate import Check, validate

__all__ = [
    "ActivityCounter",
    "AnnTwin",
    "Check",
    "EnergyReport",
    "PriceList",
    "WhatIf",
    "count_stream",
    "energy_report",
    "energy_schema",
    "list_prices",
    "load_prices",
    "measure_energy",
    "validate",
    "what_if",
]
