"""Decide the class in hardware: snn_decide.v behind the network, configured by the readout."""

from __future__ import annotations

from dataclasses import dataclass

from stl_deploy.exporters.verilog.plan import Plan, bits
from stl_deploy.integers.store import About

RULES = {"sum": 0, "mean": 0, "max": 1, "last": 2, "first": 3}
STEP_BITS = 16
"""A sum holds for so many bits of steps."""


@dataclass(frozen=True)
class Decision:
    """Parameters of snn_decide.v."""

    classes: int
    population: int
    rule: int
    vote_bits: int

    @property
    def parameters(self) -> dict[str, int]:
        """Return them by name, without the output's width."""
        return {
            "CLASSES": self.classes,
            "POPULATION": self.population,
            "RULE": self.rule,
            "CLASS_BITS": bits(self.classes - 1),
            "COUNT_BITS": bits(self.population - 1),
            "VOTE_BITS": self.vote_bits,
            "SCORE_BITS": self.vote_bits + STEP_BITS,
        }


def decision_of(plan: Plan, about: About) -> Decision | None:
    """Return the decision on the network's outputs; None if they are no list of classes."""
    readout = about.decision(plan.graph.output.shape)
    if readout is None:
        return None
    classes = plan.graph.output.shape[0] // readout.population
    vote = plan.widths.output + bits(readout.population - 1)
    return Decision(classes, readout.population, RULES[readout.over_time or "sum"], vote)


def wrapper(plan: Plan, sizes: dict[str, int], decision: Decision, prefix: str) -> str:
    """Return PREFIX_class.v: the network and its decision."""
    named = ", ".join(f".{name}({value})" for name, value in decision.parameters.items())
    load = load_joined = ""
    if plan.loaded:
        width = sizes["LANES"] * sizes["WEIGHT_BITS"]
        load = (
            f"    input  wire load,\n    input  wire [{sizes['WEIGHT_ADDR'] - 1}:0] load_addr,\n"
            f"    input  wire [{width - 1}:0] load_data,\n"
        )
        load_joined = "        .load(load), .load_addr(load_addr), .load_data(load_data),\n"
    return f"""// The network and the class that it decides on, after each step (see snn_decide.v).
// Early exit: once 'sure' is high with 'decided', go on with the next sample's first input. 'margin' counts as the
// outputs do (see {prefix}.v).

`default_nettype none

module {prefix}_class #(
    parameter HEX = "{prefix}_"
) (
    input  wire clk,
    input  wire rst,
{load}    input  wire in_valid,
    output wire in_ready,
    input  wire in_first,
    input  wire signed [{sizes["IN_BITS"] - 1}:0] in_data,
    input  wire [{decision.vote_bits - 1}:0] margin,
    output wire decided,
    output wire [{decision.parameters["CLASS_BITS"] - 1}:0] class_out,
    output wire sure
);
    wire out_valid;
    wire signed [{sizes["OUT_BITS"] - 1}:0] out_data;

    {prefix} #(.HEX(HEX)) network (
        .clk(clk), .rst(rst),
{load_joined}        .in_valid(in_valid), .in_ready(in_ready), .in_first(in_first), .in_data(in_data),
        .out_valid(out_valid), .out_ready(1'b1), .out_data(out_data), .out_last(),
        .rec_valid(), .rec_layer(), .rec_word(), .rec_bits());

    snn_decide #(.OUT_BITS({sizes["OUT_BITS"]}), {named}) decide (
        .clk(clk), .rst(rst), .restart(in_valid && in_ready && in_first),
        .valid(out_valid), .data(out_data), .margin(margin),
        .decided(decided), .class_out(class_out), .sure(sure));
endmodule

`default_nettype wire
"""
