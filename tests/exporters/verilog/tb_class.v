// snn_class.v: input.txt ("first value" a line, behind a count) goes in, "class sure" of each step into class.txt.
`include "snn_defines.vh"
module tb_class;
`include "snn_ports.vh"
    parameter WANTED = 1, MARGIN = 0, VOTE_BITS = 2, CLASS_BITS = 1;
    reg clk = 1'b0, rst = 1'b1, in_valid = 1'b0, in_first = 1'b0;
    reg signed [IN_BITS-1:0] in_data = 0;
    wire in_ready, decided, sure;
    wire [CLASS_BITS-1:0] class_out;
    wire [VOTE_BITS-1:0] margin = MARGIN;
    snn_class dut (.clk(clk), .rst(rst), .in_valid(in_valid), .in_ready(in_ready), .in_first(in_first),
        .in_data(in_data), .margin(margin), .decided(decided), .class_out(class_out), .sure(sure));
    always #5 clk = !clk;
    integer source, out, items, first, value, got;
    reg taken = 1'b0;
    initial begin
        source = $fopen("input.txt", "r");
        out    = $fopen("class.txt", "w");
        items  = $fscanf(source, "%d", value);
        got    = 0;
        #42 rst = 1'b0;
    end
    always @(negedge clk) if (!rst) begin
        if (taken) in_valid = 1'b0;
        if (!in_valid) begin
            items = $fscanf(source, "%d %d", first, value);
            if (items == 2) begin
                in_valid = 1'b1;
                in_first = first != 0;
                in_data  = value[IN_BITS-1:0];
            end
        end
    end
    always @(posedge clk) begin
        taken <= in_valid && in_ready;
        if (decided) begin
            $fdisplay(out, "%0d %0d", class_out, sure);
            got = got + 1;
            if (got == WANTED) begin
                $fclose(out);
                $finish;
            end
        end
    end
endmodule
