"""Counts, joules and the report."""

from stl_deploy.energy.context import AnnTwin
from stl_deploy.energy.counts.count import ActivityCounter, count_stream
from stl_deploy.energy.measure import EnergyReport, energy_report, energy_schema, measure_energy
from stl_deploy.energy.models.ratios import Ratio
from stl_deploy.energy.prices.load import list_prices, load_prices
from stl_deploy.energy.prices.price_list import PriceList
from stl_deploy.energy.validate import Check, validate

__all__ = [
    "ActivityCounter",
    "AnnTwin",
    "Check",
    "EnergyReport",
    "PriceList",
    "Ratio",
    "count_stream",
    "energy_report",
    "energy_schema",
    "list_prices",
    "load_prices",
    "measure_energy",
    "validate",
]
