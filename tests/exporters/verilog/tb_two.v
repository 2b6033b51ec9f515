// Two networks in one design: each takes a file of values and writes its outputs to another, at the same time.
`default_nettype none

module driver #(
    parameter IN_BITS  = 2,
    parameter OUT_BITS = 2,
    parameter SOURCE   = "",
    parameter TARGET   = ""
) (
    input  wire clk,
    input  wire rst,
    output reg  in_valid,
    input  wire in_ready,
    output reg  in_first,
    output reg  signed [IN_BITS-1:0] in_data,
    input  wire out_valid,
    input  wire signed [OUT_BITS-1:0] out_data,
    output reg  done
);
    integer source, target, wanted, got, first, value, items;
    reg taken;
    initial begin
        source   = $fopen(SOURCE, "r");
        target   = $fopen(TARGET, "w");
        items    = $fscanf(source, "%d", wanted);
        got      = 0;
        taken    = 1'b0;
        in_valid = 1'b0;
        done     = 1'b0;
    end
    always @(negedge clk) if (!rst) begin
        if (taken) in_valid = 1'b0;
        if (!in_valid) begin
            items = $fscanf(source, "%d %d", first, value);
            if (items == 2) begin
                in_valid = 1'b1;
                in_first = first != 0;
                in_data  = value;
            end
        end
    end
    always @(posedge clk) begin
        if (!rst && out_valid) begin
            $fdisplay(target, "%0d", out_data);
            got  = got + 1;
            done = got == wanted;
            if (done) $fclose(target);
        end
        taken <= !rst && in_valid && in_ready;
    end
endmodule

module tb_two;
    parameter A_IN = 2, A_OUT = 2, B_IN = 2, B_OUT = 2;
    reg clk = 1'b0, rst = 1'b1;
    wire a_valid, a_ready, a_first, a_out_valid, a_done, b_valid, b_ready, b_first, b_out_valid, b_done;
    wire signed [A_IN-1:0]  a_data;
    wire signed [A_OUT-1:0] a_out;
    wire signed [B_IN-1:0]  b_data;
    wire signed [B_OUT-1:0] b_out;

    driver #(.IN_BITS(A_IN), .OUT_BITS(A_OUT), .SOURCE("a.txt"), .TARGET("a_out.txt")) drive_a (
        .clk(clk), .rst(rst), .in_valid(a_valid), .in_ready(a_ready), .in_first(a_first), .in_data(a_data),
        .out_valid(a_out_valid), .out_data(a_out), .done(a_done));
    kws #(.HEX("ip/kws/kws_")) a (
        .clk(clk), .rst(rst), .in_valid(a_valid), .in_ready(a_ready), .in_first(a_first), .in_data(a_data),
        .out_valid(a_out_valid), .out_ready(1'b1), .out_data(a_out), .out_last(),
        .rec_valid(), .rec_layer(), .rec_word(), .rec_bits());

    driver #(.IN_BITS(B_IN), .OUT_BITS(B_OUT), .SOURCE("b.txt"), .TARGET("b_out.txt")) drive_b (
        .clk(clk), .rst(rst), .in_valid(b_valid), .in_ready(b_ready), .in_first(b_first), .in_data(b_data),
        .out_valid(b_out_valid), .out_data(b_out), .done(b_done));
    snn #(.HEX("ip/snn/snn_")) b (
        .clk(clk), .rst(rst), .in_valid(b_valid), .in_ready(b_ready), .in_first(b_first), .in_data(b_data),
        .out_valid(b_out_valid), .out_ready(1'b1), .out_data(b_out), .out_last(),
        .rec_valid(), .rec_layer(), .rec_word(), .rec_bits());

    always #5 clk = !clk;
    initial #40 rst = 1'b0;
    always @(posedge clk) if (a_done && b_done) $finish;
    initial #10000000 $finish;
endmodule

`default_nettype wire
