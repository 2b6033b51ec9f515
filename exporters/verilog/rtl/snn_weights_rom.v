// SPDX-License-Identifier: BSD-3-Clause
// The weights and parameters in a memory that the bitstream fills, from a file. Data follow the address by one clock
// and stay while en is low.

`default_nettype none

module snn_weights #(
    parameter WIDTH = 8,
    parameter DEPTH = 1,
    parameter ADDR  = 1,
    parameter HEX   = ""  // path and beginning of the file's name
) (
    input  wire             clk,
    input  wire             en,
    input  wire [ADDR-1:0]  addr,
    output wire [WIDTH-1:0] data
);
    snn_rom #(.WIDTH(WIDTH), .DEPTH(DEPTH), .ADDR(ADDR), .HEX(HEX), .FILE("weights.hex")) rom (
        .clk(clk), .en(en), .addr(addr), .data(data));
endmodule

`default_nettype wire
