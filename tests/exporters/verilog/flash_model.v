// A serial flash that sleeps until it is released (ab), then answers a read (03, 24 bits of address) from flash.hex,
// whose first byte stands at OFFSET.
module flash_model #(
    parameter BYTES  = 1,
    parameter OFFSET = 24'h100000
) (
    input  wire sck,
    input  wire cs_n,
    input  wire mosi,
    output reg  miso
);
    reg [7:0] bytes [0:BYTES-1];
    reg [31:0] command;
    reg awake;
    integer count;
    initial begin
        $readmemh("flash.hex", bytes);
        awake = 1'b0;
        miso  = 1'bx;
    end
    always @(negedge cs_n) count = 0;
    always @(posedge cs_n) if (count >= 8 && count < 16 && command[7:0] == 8'hab) awake = 1'b1;
    always @(posedge sck) if (!cs_n) begin
        if (count < 32) command = {command[30:0], mosi};
        count = count + 1;
    end
    always @(negedge sck) if (!cs_n && awake && count >= 32 && command[31:24] == 8'h03)
        miso = bytes[command[23:0] - OFFSET + (count - 32) / 8][7 - (count - 32) % 8];
endmodule
