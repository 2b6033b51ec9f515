"""Render the text of a Verilog folder from its integers alone; snn_decide.v takes the class as the readout says."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from stl_deploy.exporters.targets import require_free_prefix
from stl_deploy.exporters.verilog.memories import Memories, hex_files, memories_of, parameters_of
from stl_deploy.exporters.verilog.plan import Pass, Plan, Pool, bits
from stl_deploy.integers.store import About

ENGINE = "snn_engine.v"
"""The file by which a folder is known as one of Verilog."""
SHARED = (ENGINE, "snn_flash.v", "snn_decide.v")
"""Files that are the same for every network: those of one design share them."""
BOARDS = ("icebreaker.pcf", "ulx3s.lpf", "tang_nano_9k.cst")
"""Pins of snn_serial.v on boards."""
DEVICE = "// device: "
"""In snn_defines.vh: what the folder was made for."""
FLASH_PINS = "set_io flash_sck 15\nset_io flash_cs_n 16\nset_io flash_mosi 14\nset_io flash_miso 17\n"
"""iCEBreaker's configuration flash, in which weights.bin stands, too."""
_IN_SNN_ONLY = ("WEIGHT_WORDS",)
PREFIX = "snn"
"""Beginning of the names of a network's modules and files by default."""
_RESERVED = """
snn_engine snn_rom snn_ram snn_flash snn_decide tb accept_on alias always always_comb always_ff always_latch and assert
assign assume automatic before begin bind bins binsof bit break buf bufif0 bufif1 byte case casex casez cell chandle
checker class clocking cmos config const constraint context continue cover covergroup coverpoint cross deassign default
defparam design disable dist do edge else end endcase endchecker endclass endclocking endconfig endfunction endgenerate
endgroup endinterface endmodule endpackage endprimitive endprogram endproperty endsequence endspecify endtable endtask
enum event eventually expect export extends extern final first_match for force foreach forever fork forkjoin function
generate genvar global highz0 highz1 if iff ifnone ignore_bins illegal_bins implements implies import incdir include
initial inout input inside instance int integer interconnect interface intersect join join_any join_none large let
liblist library local localparam logic longint macromodule matches medium modport module nand negedge nettype new
nexttime nmos nor noshowcancelled not notif0 notif1 null or output package packed parameter pmos posedge primitive
priority program property protected pull0 pull1 pulldown pullup pulsestyle_ondetect pulsestyle_onevent pure rand randc
randcase randsequence rcmos real realtime ref reg reject_on release repeat restrict return rnmos rpmos rtran rtranif0
rtranif1 s_always s_eventually s_nexttime s_until s_until_with scalared sequence shortint shortreal showcancelled
signed small soft solve specify specparam static string strong strong0 strong1 struct super supply0 supply1
sync_accept_on sync_reject_on table tagged task this throughout time timeprecision timeunit tran tranif0 tranif1 tri
tri0 tri1 triand trior trireg type typedef union unique unique0 unsigned until until_with untyped use uwire var
vectored virtual void wait wait_order wand weak weak0 weak1 while wildcard wire with within wor xnor xor
"""


def render(plan: Plan, about: About) -> dict[str, str]:
    """Return every text file of a folder by name."""
    made = memories_of(plan)
    sizes = parameters_of(plan, made)
    decision, prefix, loaded = decision_of(plan, about), about.prefix, ""
    if plan.loaded:
        loaded = f"// The weights' memory is filled after configuration.\n`define {prefix.upper()}_LOADED\n"
    return {
        **{name: engine_text(name) for name in SHARED},
        f"{prefix}.v": _top(plan, sizes, about),
        f"{prefix}_tables.v": _tables(plan, made, sizes, about),
        f"{prefix}_weights.v": _renamed("snn_weights_ram.v" if plan.loaded else "snn_weights_rom.v", prefix),
        f"{prefix}_serial.v": _renamed("snn_serial.v", prefix),
        f"{prefix}_ports.vh": _ports(sizes, prefix),
        f"{prefix}_defines.vh": f"{DEVICE}{plan.device.name}\n{loaded}",
        "tb.v": _renamed("tb.v", prefix),
        "Makefile": _renamed("Makefile", prefix),
        **{f"boards/{name}": engine_text(name) for name in BOARDS},
        **({"boards/icebreaker.pcf": engine_text("icebreaker.pcf") + FLASH_PINS} if plan.loaded else {}),
        **({} if decision is None else {f"{prefix}_class.v": wrapper(plan, sizes, decision, prefix)}),
        **{f"{prefix}_{name}": text for name, text in hex_files(plan, made, sizes).items()},
    }


def require_prefix(prefix: str) -> str:
    """Return ``prefix``; raise InputError unless modules can be named so beside the engine's."""
    return require_free_prefix(prefix, _RESERVED, "a keyword of Verilog or SystemVerilog, or a module of the engine")


def engine_text(name: str) -> str:
    """Return a file that is the same for every network."""
    return (files("stl_deploy.exporters.verilog") / "rtl" / name).read_text(encoding="ascii")


def _renamed(name: str, prefix: str) -> str:
    """Return a network's copy of a file: modules, files and macros of its own begin with the prefix."""
    text = re.sub(r"\bSNN_LOADED\b", f"{prefix.upper()}_LOADED", engine_text(name))
    return re.sub(r'\bsnn(?=\b|_"|_(?:tables|weights|serial|ports|defines)\b)', prefix, text)


def _plain(text: str) -> str:
    """Return text that a comment can hold."""
    return "".join(character if " " <= character <= "~" else "?" for character in text)[:100]


def _ports(sizes: Mapping[str, int], prefix: str) -> str:
    names = (
        "INPUTS",
        "IN_BITS",
        "OUT_BITS",
        "LANES",
        "SPIKE_BITS",
        "LAYER_BITS",
        "PASS_BITS",
        "WEIGHT_ADDR",
        "WEIGHT_WORDS",
    )
    given = {name: sizes[name] for name in names}
    given["WEIGHT_WIDTH"] = sizes["LANES"] * sizes["WEIGHT_BITS"]
    given["COUNT_BITS"] = bits(sizes["INPUTS"] - 1)
    return f"// Widths of {prefix}'s ports.\n" + "".join(
        f"localparam {name} = {size};\n" for name, size in given.items()
    )


def _top(plan: Plan, sizes: Mapping[str, int], about: About) -> str:
    source, output, prefix = plan.graph.input, plan.graph.output, about.prefix
    sources = ",\n        ".join(f".{name}({name})" for name in sizes if name not in _IN_SNN_ONLY)
    wires = "".join(f"    wire {_range(width, sizes)}{name};\n" for name, width in _fields().items())
    joined = ",\n        ".join(f".{name}({name})" for name in _fields())
    load_ports = load_joined = file = ""
    if not plan.loaded:
        file = ", .HEX(HEX)"
    else:
        load_ports = f"""
    input  wire load,  // a word of {prefix}_weights.hex, before the first input
    input  wire [{sizes["WEIGHT_ADDR"] - 1}:0] load_addr,
    input  wire [{sizes["LANES"] * sizes["WEIGHT_BITS"] - 1}:0] load_data,"""
        load_joined = ",\n        .load(load), .load_addr(load_addr), .load_data(load_data)"
    locals_ = "".join(f"    localparam {name} = {value};\n" for name, value in sizes.items())
    return f"""// {_plain(about.title)}: a spiking network.
// Made by stl-deploy {_plain(about.made_by)} from {_plain(about.source)}.
//
// in:  T steps of {sizes["INPUTS"]} values, {_shape(source.shape)} in torch's order, one a transfer;
//      each is the network's input times {source.scale:g}, from {source.low} to {source.high}.
//      in_first comes with a sample's first value, which brings all neurons to rest.
// out: {_shape(output.shape)} values after each step; each times {output.unit:.9g} is the network's output.
// rec: a word of spikes of a layer (see {prefix}_tables.v), channels last: the channels of a place, {sizes["LANES"]}
//      a word of {sizes["SPIKE_BITS"]} bits each, the lowest first, then those of the next column, then the next row;
//      leave it unconnected outside of simulations.

`default_nettype none

module {prefix} #(
    parameter HEX = "{prefix}_"  // path and beginning of the names of its .hex files
) (
    input  wire clk,
    input  wire rst,{load_ports}
    input  wire in_valid,
    output wire in_ready,
    input  wire in_first,
    input  wire signed [{sizes["IN_BITS"] - 1}:0] in_data,
    output wire out_valid,
    input  wire out_ready,
    output wire signed [{sizes["OUT_BITS"] - 1}:0] out_data,
    output wire out_last,
    output wire rec_valid,
    output wire [{sizes["LAYER_BITS"] - 1}:0] rec_layer,
    output wire [{sizes["PASS_BITS"] - 1}:0] rec_word,
    output wire [{sizes["LANES"] * sizes["SPIKE_BITS"] - 1}:0] rec_bits
);
{locals_}
    wire [ENTRY_BITS-1:0] entry;
    wire weight_en;
    wire [WEIGHT_ADDR-1:0] weight_addr;
    wire [LANES*WEIGHT_BITS-1:0] weight_data;
{wires}
    {prefix}_tables tables (
        .clk(clk), .entry(entry),
        {joined}
    );

    {prefix}_weights #(.WIDTH(LANES * WEIGHT_BITS), .DEPTH(WEIGHT_WORDS), .ADDR(WEIGHT_ADDR){file}) weights (
        .clk(clk), .en(weight_en), .addr(weight_addr), .data(weight_data){load_joined});

    snn_engine #(
        {sources},
        .HEX(HEX)
    ) engine (
        .clk(clk), .rst(rst),
        .in_valid(in_valid), .in_ready(in_ready), .in_first(in_first), .in_data(in_data),
        .out_valid(out_valid), .out_ready(out_ready), .out_data(out_data), .out_last(out_last),
        .rec_valid(rec_valid), .rec_layer(rec_layer), .rec_word(rec_word), .rec_bits(rec_bits),
        .weight_en(weight_en), .weight_addr(weight_addr), .weight_data(weight_data),
        .entry(entry),
        {joined}
    );
endmodule

`default_nettype wire
"""


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(str(size) for size in shape)


@cache
def _fields() -> dict[str, str]:
    """Return the fields of the program's entries and the highest bit of each, as the engine declares them."""
    ports = engine_text(ENGINE).split("// The program's entry", 1)[1].split(");", 1)[0]
    return {name: highest for highest, name in re.findall(r"input  wire (?:\[([\w-]+):0\])? *(\w+)", ports)}


def _range(highest: str, sizes: Mapping[str, int]) -> str:
    return f"[{_bits(highest, sizes) - 1}:0] " if highest else ""


def _bits(highest: str, sizes: Mapping[str, int]) -> int:
    return 1 + int(highest or 0) if not highest.endswith("-1") else sizes[highest.removesuffix("-1")]


def _tables(plan: Plan, made: Memories, sizes: Mapping[str, int], about: About) -> str:
    ports = ",\n".join(f"    output reg  {_range(width, sizes)}{name}" for name, width in _fields().items())
    defaults = "".join(f"        {name} <= {_number(0, width, sizes)};\n" for name, width in _fields().items())
    cases = []
    for index, (entry, fields) in enumerate(zip(plan.entries, made.entries, strict=True)):
        lines = [f"{name} <= {_number(value, _fields()[name], sizes)};" for name, value in fields.items()]
        text = "\n".join(f"                {line}" for line in lines)
        if isinstance(entry, Pass):
            what = f"pass: {_plain(entry.name)}"
        elif isinstance(entry, Pool):
            what = f"pool: {_plain(entry.source)} to {_plain(entry.name)}"
        else:
            late = f", {entry.delay} late" if entry.delay else ""
            what = f"scan: {'biases' if entry.source is None else _plain(entry.source)} to {_plain(entry.to)}{late}"
        cases.append(f"            {sizes['ENTRY_BITS']}'d{index}: begin  // {what}\n{text}\n            end\n")
    return f"""// The program of {_plain(about.title)}: what snn_engine.v does in each step, entry by entry.
// Made by stl-deploy.

`default_nettype none

module {about.prefix}_tables (
    input  wire clk,
    input  wire [{sizes["ENTRY_BITS"] - 1}:0] entry,
{ports}
);
    always @(posedge clk) begin
{defaults}        case (entry)
{"".join(cases)}            default: op <= 2'd0;
        endcase
    end
endmodule

`default_nettype wire
"""


def _number(value: int, width: str, sizes: Mapping[str, int]) -> str:
    return f"{_bits(width, sizes)}'d{value}"


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
