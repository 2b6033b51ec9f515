// SPDX-License-Identifier: BSD-3-Clause
// The network behind a serial line (8 bits, no parity, one stop bit; CLOCKS_PER_BIT = clock / baud rate).
//
// The host sends a step: a byte (1: a sample's first step, 0: a further one), then the step's inputs, each as bytes, the
// lowest first. It is answered with the step's outputs, each as bytes with sign, the lowest first; then it sends the
// next step. Bytes of a value: as many as its width needs.
//
// SNN_LOADED (in snn_defines.vh): the weights come from a serial flash, and the network waits in reset for them.

`include "snn_defines.vh"

`default_nettype none

module snn_serial #(
    parameter CLOCKS_PER_BIT = 104,
    parameter HEX = "snn_"  // path and beginning of the names of the .hex files
) (
    input  wire clk,
    input  wire rx,
`ifdef SNN_LOADED
    output wire flash_sck,
    output wire flash_cs_n,
    output wire flash_mosi,
    input  wire flash_miso,
`endif
    output wire tx
);
`include "snn_ports.vh"
    localparam IN_BYTES = (IN_BITS + 7) / 8, OUT_BYTES = (OUT_BITS + 7) / 8;
    localparam CLOCK_BITS = $clog2(CLOCKS_PER_BIT);
    localparam [31:0] BIT_32 = CLOCKS_PER_BIT - 1, HALF_32 = CLOCKS_PER_BIT / 2;
    localparam [CLOCK_BITS-1:0] BIT = BIT_32[CLOCK_BITS-1:0], HALF = HALF_32[CLOCK_BITS-1:0];
    localparam [31:0] IN_32 = IN_BYTES - 1, OUT_32 = OUT_BYTES - 1;
    localparam [2:0] LAST_IN = IN_32[2:0], LAST_OUT = OUT_32[2:0];
    localparam [31:0] INPUTS_32 = INPUTS - 1;
    localparam [COUNT_BITS-1:0] LAST_INPUT = INPUTS_32[COUNT_BITS-1:0];

    // Reset for the first clocks after configuration.
    reg [3:0] started = 4'd0;
    always @(posedge clk) if (started != 4'd15) started <= started + 1'b1;
`ifdef SNN_LOADED
    wire loaded, load;
    wire [WEIGHT_ADDR-1:0]  load_addr;
    wire [WEIGHT_WIDTH-1:0] load_data;
    wire rst = started != 4'd15 || !loaded;
    snn_flash #(.WIDTH(WEIGHT_WIDTH), .WORDS(WEIGHT_WORDS), .ADDR(WEIGHT_ADDR)) flash (
        .clk(clk), .sck(flash_sck), .cs_n(flash_cs_n), .mosi(flash_mosi), .miso(flash_miso),
        .load(load), .load_addr(load_addr), .load_data(load_data), .done(loaded));
`else
    wire rst = started != 4'd15;
`endif

    // Receive: a byte is there in the clock in which rx_done is 1.
    reg [1:0]  line = 2'b11;
    reg [CLOCK_BITS-1:0] rx_clocks;
    reg [3:0]  rx_bits;
    reg [7:0]  rx_byte;
    reg        receiving, rx_done;
    always @(posedge clk) begin
        line    <= {line[0], rx};
        rx_done <= 1'b0;
        if (!receiving) begin
            rx_clocks <= HALF;
            rx_bits   <= 4'd0;
            receiving <= !line[1];
        end else if (rx_clocks != 0) rx_clocks <= rx_clocks - 1'b1;
        else begin
            rx_clocks <= BIT;
            rx_bits   <= rx_bits + 1'b1;
            if (rx_bits == 4'd0) receiving <= !line[1];  // in the middle of the start bit
            else if (rx_bits == 4'd9) begin
                receiving <= 1'b0;
                rx_done   <= line[1];
            end else rx_byte <= {line[1], rx_byte[7:1]};
        end
        if (rst) receiving <= 1'b0;
    end

    // A step's bytes as values.
    reg                  header, first, in_valid;
    reg [2:0]            in_byte;
    reg [COUNT_BITS-1:0] in_count;
    reg [8*IN_BYTES-1:0] in_value;
    wire                 in_ready;
    wire [8*IN_BYTES+7:0] in_shifted = {rx_byte, in_value};
    always @(posedge clk) begin
        if (in_valid && in_ready) begin
            in_valid <= 1'b0;
            first    <= 1'b0;
        end
        if (rx_done && header) begin
            header  <= 1'b0;
            first   <= rx_byte[0];
            in_byte <= 3'd0;
        end else if (rx_done) begin
            in_value <= in_shifted[8+:8*IN_BYTES];
            in_byte  <= in_byte == LAST_IN ? 3'd0 : in_byte + 1'b1;
            if (in_byte == LAST_IN) begin
                in_valid <= 1'b1;
                in_count <= in_count == LAST_INPUT ? {COUNT_BITS{1'b0}} : in_count + 1'b1;
                header   <= in_count == LAST_INPUT;
            end
        end
        if (rst) begin
            header   <= 1'b1;
            first    <= 1'b0;
            in_valid <= 1'b0;
            in_count <= 0;
        end
    end

    // Values as bytes, and the bytes' bits.
    wire                       out_valid;
    wire signed [OUT_BITS-1:0] out_data;
    reg [8*OUT_BYTES-1:0]      out_value;
    reg [2:0]                  out_byte;
    reg                        sending;
    reg [CLOCK_BITS-1:0]       tx_clocks;
    reg [3:0]                  tx_bits;
    reg [9:0]                  tx_shift = 10'h3ff;
    assign tx = tx_shift[0];
    wire out_ready = !sending;
    wire [OUT_BITS+7:0] extended = {{8{out_data[OUT_BITS-1]}}, out_data};
    always @(posedge clk) begin
        if (!sending) begin
            if (out_valid) begin
                sending   <= 1'b1;
                out_value <= extended[8*OUT_BYTES-1:0];
                out_byte  <= 3'd0;
                tx_shift  <= {1'b1, extended[7:0], 1'b0};
                tx_clocks <= BIT;
                tx_bits   <= 4'd9;
            end
        end else if (tx_clocks != 0) tx_clocks <= tx_clocks - 1'b1;
        else begin
            tx_clocks <= BIT;
            tx_shift  <= {1'b1, tx_shift[9:1]};
            tx_bits   <= tx_bits - 1'b1;
            if (tx_bits == 0) begin
                tx_bits  <= 4'd9;
                out_byte <= out_byte + 1'b1;
                if (out_byte == LAST_OUT) sending <= 1'b0;
                else tx_shift <= {1'b1, next_byte(out_value, out_byte), 1'b0};
            end
        end
        if (rst) begin
            sending  <= 1'b0;
            tx_shift <= 10'h3ff;
        end
    end

    function [7:0] next_byte(input [8*OUT_BYTES-1:0] value, input [2:0] sent);
        reg [8*OUT_BYTES+7:0] wide;
        begin
            wide      = {8'd0, value};
            next_byte = wide[8*(sent+1)+:8];
        end
    endfunction

    snn #(.HEX(HEX)) network (
        .clk(clk), .rst(rst),
`ifdef SNN_LOADED
        .load(load), .load_addr(load_addr), .load_data(load_data),
`endif
        .in_valid(in_valid), .in_ready(in_ready), .in_first(first), .in_data(in_value[IN_BITS-1:0]),
        .out_valid(out_valid), .out_ready(out_ready), .out_data(out_data), .out_last(),
        .rec_valid(), .rec_layer(), .rec_word(), .rec_bits());
endmodule

`default_nettype wire
