// snn_decide.v alone, two classes: class 1 has its first vote at step EARLY, class 0 at step LATE. Into class.txt: "class
// sure" after the last of STEPS steps.
module tb_decide;
    parameter RULE = 3, EARLY = 0, LATE = 1, STEPS = 2;
    reg clk = 1'b0, rst = 1'b1;
    reg signed [1:0] data = 0;
    wire decided, class_out, sure;
    snn_decide #(.RULE(RULE)) dut (.clk(clk), .rst(rst), .restart(1'b0), .valid(!rst), .data(data), .margin(2'd0),
        .decided(decided), .class_out(class_out), .sure(sure));
    always #5 clk = !clk;
    integer step, out;
    initial begin
        out = $fopen("class.txt", "w");
        @(negedge clk) rst = 1'b0;
        for (step = 0; step < STEPS; step = step + 1) begin
            data = step == LATE;
            @(negedge clk) data = step == EARLY;
            @(negedge clk);
        end
        $fdisplay(out, "%0d %0d", class_out, sure);
        $fclose(out);
        $finish;
    end
endmodule
