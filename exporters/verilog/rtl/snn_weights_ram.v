// SPDX-License-Identifier: BSD-3-Clause
// The weights and parameters in a memory of one port that is filled after configuration, as UP5K's SB_SPRAM256KA.
// Data follow the address by one clock and stay while en is low.

`default_nettype none

module snn_weights #(
    parameter WIDTH = 8,
    parameter DEPTH = 1,
    parameter ADDR  = 1
) (
    input  wire             clk,
    input  wire             en,
    input  wire [ADDR-1:0]  addr,
    output reg  [WIDTH-1:0] data,
    input  wire             load,
    input  wire [ADDR-1:0]  load_addr,
    input  wire [WIDTH-1:0] load_data
);
    (* ram_style = "huge" *) reg [WIDTH-1:0] words[0:DEPTH-1];
    wire [ADDR-1:0] at = load ? load_addr : addr;
    always @(posedge clk)
        if (load) words[at] <= load_data;
        else if (en) data <= words[at];
endmodule

`default_nettype wire
