// SPDX-License-Identifier: BSD-3-Clause
// Copies weights.bin from a serial flash into the weights' memory after configuration: WORDS words, each of as many
// bytes as it needs, the highest byte first, from OFFSET on. sck has half the clock's rate.

`default_nettype none

module snn_flash #(
    parameter WIDTH  = 64,
    parameter WORDS  = 1,
    parameter ADDR   = 1,
    parameter OFFSET = 24'h100000
) (
    input  wire             clk,
    output reg              sck,
    output reg              cs_n,
    output wire             mosi,
    input  wire             miso,
    output reg              load,
    output reg  [ADDR-1:0]  load_addr,
    output wire [WIDTH-1:0] load_data,
    output reg              done
);
    localparam BYTES = (WIDTH + 7) / 8;
    localparam [31:0] LAST_BIT_32 = 8 * BYTES - 1, LAST_WORD_32 = WORDS - 1;
    localparam [11:0] LAST_BIT = LAST_BIT_32[11:0], WAKING = 12'd4095;
    localparam [ADDR-1:0] LAST_WORD = LAST_WORD_32[ADDR-1:0];
    localparam [7:0] RELEASE = 8'hab, READ = 8'h03;

    localparam [2:0] START = 0, WAKE = 1, WAIT = 2, ASK = 3, DATA = 4, END = 5;
    reg [2:0]         state;
    reg [11:0]        left;       // bits of this state, or clocks, less one
    reg [31:0]        command;
    reg [8*BYTES-1:0] word;
    assign mosi      = command[31];
    assign load_data = word[WIDTH-1:0];

    initial begin
        state = START;
        sck   = 1'b0;
        cs_n  = 1'b1;
        load  = 1'b0;
        done  = 1'b0;
    end

    always @(posedge clk) begin
        load <= 1'b0;
        if (load) load_addr <= load_addr + 1'b1;
        case (state)
            START: begin
                command   <= {RELEASE, 24'd0};
                left      <= 12'd7;
                load_addr <= 0;
                cs_n      <= 1'b0;
                state     <= WAKE;
            end

            WAKE, ASK, DATA: begin
                sck <= !sck;
                if (!sck) word <= {word[8*BYTES-2:0], miso};  // it rises
                else begin
                    command <= command << 1;
                    left    <= left - 1'b1;
                    if (left == 0) begin
                        left <= state == WAKE ? WAKING : LAST_BIT;
                        cs_n <= state == WAKE || (state == DATA && load_addr == LAST_WORD);
                        load <= state == DATA;
                        state <= state == WAKE ? WAIT : state == DATA && load_addr == LAST_WORD ? END : DATA;
                    end
                end
            end

            WAIT: begin
                left <= left - 1'b1;
                if (left == 0) begin
                    command <= {READ, OFFSET[23:0]};
                    left    <= 12'd31;
                    cs_n    <= 1'b0;
                    state   <= ASK;
                end
            end

            default: done <= 1'b1;  // END
        endcase
    end
endmodule

`default_nettype wire
