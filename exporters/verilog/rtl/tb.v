// SPDX-License-Identifier: BSD-3-Clause
// Testbench: values from input.txt ("first value" a line, behind the number of outputs to wait for) go in; outputs and
// spikes are written to outputs.txt and spikes.txt. +pressure=SEED holds both ends up at random; +limit=CLOCKS;
// +reset=CLOCK resets the network then, wherever it is, and begins anew. Weights that are loaded go in before clock 1.
`include "snn_defines.vh"
`default_nettype none

module tb;
`include "snn_ports.vh"
    reg clk = 1'b0, rst = 1'b1;
    reg in_valid = 1'b0, in_first = 1'b0, out_ready = 1'b0, taken = 1'b0;
    reg signed [IN_BITS-1:0] in_data = 0;
    wire in_ready, out_valid, out_last, rec_valid;
    wire signed [OUT_BITS-1:0] out_data;
    wire [LAYER_BITS-1:0] rec_layer;
    wire [PASS_BITS-1:0] rec_word;
    wire [LANES*SPIKE_BITS-1:0] rec_bits;
    reg loaded = 1'b1;
`ifdef SNN_LOADED
    reg load = 1'b0;
    reg [WEIGHT_ADDR-1:0] load_addr = 0;
    reg [WEIGHT_WIDTH-1:0] load_data = 0;
    reg [WEIGHT_WIDTH-1:0] weights [0:WEIGHT_WORDS-1];
    integer word = 0;
    initial begin
        $readmemh("snn_weights.hex", weights);
        loaded = 1'b0;
    end
    always @(negedge clk) begin
        load      = word < WEIGHT_WORDS;
        load_addr = word[WEIGHT_ADDR-1:0];
        load_data = word < WEIGHT_WORDS ? weights[word] : {WEIGHT_WIDTH{1'b0}};
        loaded    = !load;
        word      = word + 1;
    end
`endif

    snn dut (
        .clk(clk), .rst(rst),
`ifdef SNN_LOADED
        .load(load), .load_addr(load_addr), .load_data(load_data),
`endif
        .in_valid(in_valid), .in_ready(in_ready), .in_first(in_first), .in_data(in_data),
        .out_valid(out_valid), .out_ready(out_ready), .out_data(out_data), .out_last(out_last),
        .rec_valid(rec_valid), .rec_layer(rec_layer), .rec_word(rec_word), .rec_bits(rec_bits));

    always #5 clk = !clk;

    integer source, outputs, spikes, wanted, got, seed, pressure, first, value, items;
    reg [63:0] clocks, limit, reset;

    initial begin
        pressure = $value$plusargs("pressure=%d", seed);
        if (!$value$plusargs("limit=%d", limit)) limit = 64'd1000000000000;
        if (!$value$plusargs("reset=%d", reset)) reset = 64'd0;
        clocks = 0;
        open;
    end

    task open;
        begin
            source  = $fopen("input.txt", "r");
            outputs = $fopen("outputs.txt", "w");
            spikes  = $fopen("spikes.txt", "w");
            items   = $fscanf(source, "%d", wanted);
            got     = 0;
        end
    endtask

    // Signals change at the falling edge, half a clock before they are read.
    always @(negedge clk) if (loaded) begin
        clocks = clocks + 1;
        rst = clocks < 4 || (reset != 0 && clocks >= reset && clocks < reset + 4);
        if (rst) begin
            in_valid  = 1'b0;
            out_ready = 1'b0;
            if (clocks == reset) begin
                $fclose(source);
                $fclose(outputs);
                $fclose(spikes);
                open;
            end
        end else if (clocks > 4) begin
            if (taken) in_valid = 1'b0;
            if (!in_valid && (pressure == 0 || $random(seed) % 3 != 0)) begin
                items = $fscanf(source, "%d %d", first, value);
                if (items == 2) begin
                    in_valid = 1'b1;
                    in_first = first != 0;
                    in_data  = value[IN_BITS-1:0];
                end
            end
            out_ready = pressure == 0 || $random(seed) % 3 == 0;
        end
        if (clocks > limit) begin
            $display("stalled: %0d of %0d outputs after %0d clocks", got, wanted, clocks);
            $finish;
        end
    end

    always @(posedge clk) begin
        if (!rst && rec_valid) $fdisplay(spikes, "%0d %0d %b", rec_layer, rec_word, rec_bits);
        if (!rst && out_valid && out_ready) begin
            $fdisplay(outputs, "%0d %0d", out_data, out_last);
            got = got + 1;
            if (got == wanted) begin
                $display("done: %0d outputs in %0d clocks", got, clocks);
                $fclose(outputs);
                $fclose(spikes);
                $finish;
            end
        end
        taken <= !rst && in_valid && in_ready;
    end
endmodule

`default_nettype wire
