// snn_serial.v end to end: bytes of host.hex go in by rx; bytes from tx are written to board.txt. Weights that are loaded
// come from a flash first, while the host waits.
`include "snn_defines.vh"
module tb_serial;
    parameter BYTES = 1, WANTED = 1, STEP = 1, ANSWER = 1, FLASH = 1;
    reg clk = 1'b0, rx = 1'b1;
    wire tx;
    reg [7:0] host [0:BYTES-1];
    reg [7:0] got;
    integer out, i, k, answered;
`ifdef SNN_LOADED
    wire sck, cs_n, mosi, miso;
    flash_model #(.BYTES(FLASH)) flash (.sck(sck), .cs_n(cs_n), .mosi(mosi), .miso(miso));
    snn_serial #(.CLOCKS_PER_BIT(8)) dut (
        .clk(clk), .rx(rx), .tx(tx), .flash_sck(sck), .flash_cs_n(cs_n), .flash_mosi(mosi), .flash_miso(miso));
    wire ready = dut.loaded;
`else
    snn_serial #(.CLOCKS_PER_BIT(8)) dut (.clk(clk), .rx(rx), .tx(tx));
    wire ready = 1'b1;
`endif
    always #5 clk = !clk;

    initial begin
        $readmemh("host.hex", host);
        out = $fopen("board.txt", "w");
        answered = 0;
        wait (ready);
        #2000;
        for (i = 0; i < BYTES; i = i + 1) begin
            // A step is sent when the one before is answered.
            wait (answered >= (i / STEP) * ANSWER);
            rx = 1'b0;
            #80;
            for (k = 0; k < 8; k = k + 1) begin
                rx = host[i][k];
                #80;
            end
            rx = 1'b1;
            #80;
        end
    end

    always @(negedge tx) begin : receive
        integer b;
        #120;
        for (b = 0; b < 8; b = b + 1) begin
            got[b] = tx;
            #80;
        end
        $fdisplay(out, "%0d", got);
        answered = answered + 1;
        if (answered == WANTED) begin
            $fclose(out);
            $finish;
        end
    end
endmodule
