// SPDX-License-Identifier: BSD-3-Clause
// Decides on a classifier's outputs: after each step the class so far, and whether its lead is enough to stop. Takes the
// outputs of snn as they leave it; scores are kept from a sample's first input on.
//
// RULE, what counts over time: 0: the sum, 1: the maximum, 2: the last step, 3: the first step with an output above 0 (in
// one step the greatest). Of equal scores the first class wins. sure: the class leads by 'margin' (a sum: by 'margin' for
// each step; the first step: as soon as there is one). A sum holds for 65,535 steps, the other rules for any number.

`default_nettype none

module snn_decide #(
    parameter OUT_BITS   = 2,
    parameter CLASSES    = 2,
    parameter POPULATION = 1,  // neighbouring outputs whose sum is a class's vote
    parameter RULE       = 0,
    parameter CLASS_BITS = 1,
    parameter COUNT_BITS = 1,  // of outputs of a class, less one
    parameter VOTE_BITS  = 2,
    parameter SCORE_BITS = 18  // VOTE_BITS + 16
) (
    input  wire clk,
    input  wire rst,
    input  wire restart,        // a sample's first input is taken
    input  wire valid,          // an output is taken
    input  wire signed [OUT_BITS-1:0] data,
    input  wire [VOTE_BITS-1:0] margin,
    output reg  decided,        // for one clock after a step's last output
    output reg  [CLASS_BITS-1:0] class_out,
    output wire sure
);
    localparam [31:0] LAST_CLASS_32 = CLASSES - 1, LAST_MEMBER_32 = POPULATION - 1;
    localparam [CLASS_BITS-1:0] LAST_CLASS  = LAST_CLASS_32[CLASS_BITS-1:0];
    localparam [COUNT_BITS-1:0] LAST_MEMBER = LAST_MEMBER_32[COUNT_BITS-1:0];

    reg signed [SCORE_BITS-1:0] scores [0:CLASSES-1];
    reg                         first_step, settled, has_second;
    reg [CLASS_BITS-1:0]        at, leader;
    reg [COUNT_BITS-1:0]        member;
    reg signed [VOTE_BITS-1:0]  votes;
    reg signed [SCORE_BITS-1:0] best, second;
    reg [SCORE_BITS-1:0]        needed;

    wire signed [VOTE_BITS-1:0]  vote = (member == 0 ? {VOTE_BITS{1'b0}} : votes)
                                        + {{VOTE_BITS - OUT_BITS{data[OUT_BITS-1]}}, data};
    wire signed [SCORE_BITS-1:0] wide   = {{SCORE_BITS - VOTE_BITS{vote[VOTE_BITS-1]}}, vote};
    wire signed [SCORE_BITS-1:0] so_far = first_step ? {SCORE_BITS{1'b0}} : scores[at];
    wire signed [SCORE_BITS-1:0] score  = scored(so_far, wide, first_step, settled);
    wire class_end = member == LAST_MEMBER;
    wire signed [SCORE_BITS:0] lead = {best[SCORE_BITS-1], best} - {second[SCORE_BITS-1], second};
    assign sure = RULE == 3 ? best > 0 : !has_second || lead >= $signed({1'b0, needed});

    // A wire follows what it calls a function with, not what the function reads besides: all is an argument.
    function signed [SCORE_BITS-1:0] scored(input signed [SCORE_BITS-1:0] old, input signed [SCORE_BITS-1:0] now,
                                            input is_first, input is_settled);
        begin
            case (RULE)
                0: scored = old + now;
                1: scored = is_first || now > old ? now : old;
                2: scored = now;
                default: scored = is_settled || now < 0 ? old : now;  // no later step changes the class: none is counted
            endcase
        end
    endfunction

    always @(posedge clk) begin
        decided <= 1'b0;
        if (valid) begin
            votes  <= vote;
            member <= class_end ? {COUNT_BITS{1'b0}} : member + 1'b1;
            if (class_end) begin
                scores[at] <= score;
                at         <= at == LAST_CLASS ? {CLASS_BITS{1'b0}} : at + 1'b1;
                if (at == 0 || score > best) begin
                    leader     <= at;
                    best       <= score;
                    second     <= best;
                    has_second <= at != 0;
                end else if (!has_second || score > second) begin
                    second     <= score;
                    has_second <= 1'b1;
                end
                if (at == LAST_CLASS) begin
                    decided    <= 1'b1;
                    class_out  <= at == 0 || score > best ? at : leader;
                    first_step <= 1'b0;
                    settled    <= score > 0 || (at != 0 && best > 0);
                    needed     <= (RULE == 0 ? needed : {SCORE_BITS{1'b0}}) + {{SCORE_BITS - VOTE_BITS{1'b0}}, margin};
                end
            end
        end
        if (rst || restart) begin
            first_step <= 1'b1;
            settled    <= 1'b0;
            needed     <= 0;
            at         <= 0;
            member     <= 0;
            decided    <= 1'b0;
        end
    end
endmodule

`default_nettype wire
