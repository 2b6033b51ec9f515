// SPDX-License-Identifier: BSD-3-Clause
// Spiking network engine: LANES neurons at a time run all layers in turn. This file is the same for every network;
// sizes are parameters, the network is a program (snn_tables.v) and memories (*.hex). Networks of one design share it.
//
// A step: take the inputs, run the program's entries from 0, send the outputs.
//   scan  for every event of a source (a spike, or an input that is not 0): add a row of weights, times the input, to
//         the potentials that it reaches, LANES of them a clock. Where events go is a list of taps for each row and
//         each column of the source: the potential and the weight are sums of a row's tap and a column's.
//   pass  for every word of a layer's potentials: fire above the threshold, reset, leak for the next step.
//   pool  for every word of a pool: take the most of the spikes in its window.
// A neuron may fire several spikes a step, one a clock: they are counted, and are one event, times the count.
// Potentials are in 64ths of a weight. A filtered layer keeps its currents apart: events add to those.

`default_nettype none

module snn_engine #(
    parameter LANES        = 8,   // neurons at work at a time
    parameter MULTIPLIERS  = 8,   // lanes that multiply with `*`; the others add up shifted weights
    parameter WEIGHT_BITS  = 8,
    parameter STATE_BITS   = 24,  // of a potential, with sign
    parameter CLIP         = 0,   // 1: potentials can reach their limit, 2^29, and stop there
    parameter THRESH_BITS  = 17,
    parameter VALUE_BITS   = 0,   // of what a reset takes off or sets, with sign; 0: no layer has any
    parameter KEEP_BITS    = 0,   // 13: what states keep stands with each neuron; 0: one number a layer
    parameter BIAS_BITS    = 0,   // of what is added to a potential in each step, with sign
    parameter LOADS        = 3,   // words of parameters for each word of potentials
    parameter IN_BITS      = 2,   // of an input, with sign
    parameter OUT_BITS     = 24,
    parameter OUT_SHIFT    = 0,
    parameter SPIKE_BITS   = 1,   // of the spikes that a neuron fires in a step
    parameter INPUTS       = 1,   // a step
    parameter INPUT_ADDR   = 1,
    parameter INPUT_WORDS  = 1,   // inputs of all steps that are kept
    parameter SPIKE_ADDR   = 1,
    parameter SPIKE_WORDS  = 1,
    parameter FRAME        = 1,   // words of spikes a step
    parameter STEP_BITS    = 1,   // of the longest delay
    parameter STATE_ADDR   = 1,
    parameter STATE_WORDS  = 1,
    parameter WEIGHT_ADDR  = 8,
    parameter ENTRY_BITS   = 1,   // of the program counter
    parameter LAYER_BITS   = 1,
    parameter SHIFT_BITS   = 1,
    parameter FACTOR_BITS  = 2,   // of what a weight is multiplied by, with sign
    parameter OUTER_BITS   = 1,   // of the counters of input channels,
    parameter ROW_BITS     = 1,   //   rows,
    parameter COL_BITS     = 1,   //   columns,
    parameter WORD_BITS    = 1,   //   words at a place,
    parameter GROUP_BITS   = 1,   //   words that a tap reaches,
    parameter PASS_BITS    = 1,   //   words of a layer,
    parameter FAN_BITS     = 1,   //   taps of a row or column
    parameter ROW_ADDR     = 1,
    parameter ROW_WORDS    = 1,
    parameter COL_ADDR     = 1,
    parameter COL_WORDS    = 1,
    parameter ROW_TAP_ADDR = 1,
    parameter ROW_TAPS     = 1,
    parameter COL_TAP_ADDR = 1,
    parameter COL_TAPS     = 1,
    parameter HEX          = ""   // path and beginning of the names of rows.hex and so on
) (
    input  wire clk,
    input  wire rst,

    input  wire                             in_valid,
    output wire                             in_ready,
    input  wire                             in_first,
    input  wire signed [IN_BITS-1:0]        in_data,
    output wire                             out_valid,
    input  wire                             out_ready,
    output wire signed [OUT_BITS-1:0]       out_data,
    output wire                             out_last,

    output reg                              rec_valid,
    output reg  [LAYER_BITS-1:0]            rec_layer,
    output reg  [PASS_BITS-1:0]             rec_word,
    output reg  [LANES*SPIKE_BITS-1:0]      rec_bits,

    // The weights' memory: data follow the address by one clock and stay while enable is low.
    output wire                             weight_en,
    output wire [WEIGHT_ADDR-1:0]           weight_addr,
    input  wire [LANES*WEIGHT_BITS-1:0]     weight_data,

    // The program's entry, from snn_tables.v: one clock after its number.
    output reg  [ENTRY_BITS-1:0]            entry,
    input  wire [1:0]                       op,           // 0: the last entry has been, 1: scan, 2: pass, 3: pool
    input  wire [STATE_ADDR-1:0]            state_base,   // potentials (currents, if filtered) that it reaches
    input  wire [WEIGHT_ADDR-1:0]           weight_base,  // weights, parameters, or the spikes that a pool reads
    input  wire [SPIKE_ADDR-1:0]            spike_base,   // spikes read, or written
    input  wire [GROUP_BITS-1:0]            group_last,   // counts less one, here and below
    input  wire                             from_input,
    input  wire                             from_one,     // the source is one that always fires
    input  wire [STEP_BITS-1:0]             back_steps,   // reads so many steps late
    input  wire [SPIKE_ADDR-1:0]            back_words,   //   and so many words before
    input  wire [INPUT_ADDR-1:0]            back_inputs,
    input  wire [OUTER_BITS-1:0]            outer_last,
    input  wire [WEIGHT_ADDR-1:0]           outer_step,   // weights of an input channel
    input  wire [ROW_BITS-1:0]              row_last,
    input  wire [ROW_ADDR-1:0]              row_base,
    input  wire [COL_BITS-1:0]              col_last,
    input  wire [COL_ADDR-1:0]              col_base,
    input  wire [WORD_BITS-1:0]             word_last,
    input  wire [WEIGHT_ADDR-1:0]           word_step,    // weights of a word of spikes
    input  wire [SHIFT_BITS-1:0]            shift,        // of what events add
    input  wire [LAYER_BITS-1:0]            layer,
    input  wire [PASS_BITS-1:0]             pass_last,
    input  wire [PASS_BITS-1:0]             repeat_last,  // words after which parameters begin again
    input  wire [STATE_ADDR-1:0]            value_base,   // potentials of a filtered layer
    input  wire                             filtered,
    input  wire                             spiking,
    input  wire                             emits,
    input  wire                             subtracts,         // a spike subtracts
    input  wire                             late,         //   in the next step
    input  wire [SPIKE_BITS-1:0]            more,         // spikes of a neuron in a step at most, less one
    input  wire [12:0]                      keep,         // of 4096, what a potential keeps, from its lowest bit
    input  wire [3:0]                       keep_from,    //   that is 1, which stands here
    input  wire [12:0]                      filter_keep,
    input  wire [3:0]                       filter_from,
    input  wire [LANES-1:0]                 last_lanes    // neurons in a layer's last word
);
    localparam LOAD_BITS    = LOADS * WEIGHT_BITS;
    localparam PRODUCT_BITS = WEIGHT_BITS + FACTOR_BITS;
    localparam WHOLE_BITS   = STATE_BITS - 6;
    localparam KEPT_BITS    = STATE_BITS + 1;
    localparam [LANES-1:0] LAST_EMIT = 1;
    localparam [FAN_BITS:0] TWO_TAPS = 2;
    localparam signed [IN_BITS-1:0] IN_ONE = 1;
    localparam [7:0] LAST_LOAD = LOADS - 1;
    localparam [WEIGHT_ADDR-1:0] WEIGHT_ONE = 1, WEIGHT_LANES = LANES;
    localparam LANE_SPIKES = LANES * SPIKE_BITS;

    localparam [3:0] INPUT = 0, CLEAR = 1, FETCH = 2, SCAN = 3, READ = 4, LOAD = 5, CURRENT = 6, FILTER = 7,
                     POTENTIAL = 8, FIRE = 9, EMIT = 10, LEAK = 11, LATE = 12, ADVANCE = 13, LOOK = 14, RESET = 15;
    reg [3:0] state;
    wire pooling = op == 2'd3;

    // ---- Time: the steps since a sample began, and where this step's spikes and inputs stand among those kept.
    // Counts as addresses; one that is a power of two is 0 there, as sums of addresses are.
    localparam [31:0] FRAME_32 = FRAME, FRAMES_32 = SPIKE_WORDS - FRAME, SPIKES_32 = SPIKE_WORDS - 1;
    localparam [31:0] INPUT_32 = INPUTS, INPUTS_32 = INPUT_WORDS - INPUTS, PLACES_32 = INPUT_WORDS - 1;
    localparam [31:0] STATES_32 = STATE_WORDS - 1;
    localparam [SPIKE_ADDR-1:0] FRAME_STEP  = FRAME_32[SPIKE_ADDR-1:0];
    localparam [SPIKE_ADDR-1:0] FRAME_LAST  = FRAMES_32[SPIKE_ADDR-1:0];
    localparam [SPIKE_ADDR-1:0] SPIKE_LAST  = SPIKES_32[SPIKE_ADDR-1:0];
    localparam [INPUT_ADDR-1:0] INPUT_STEP  = INPUT_32[INPUT_ADDR-1:0];
    localparam [INPUT_ADDR-1:0] INPUTS_LAST = INPUTS_32[INPUT_ADDR-1:0];
    localparam [INPUT_ADDR-1:0] INPUT_LAST  = PLACES_32[INPUT_ADDR-1:0];
    localparam [STATE_ADDR-1:0] STATE_LAST  = STATES_32[STATE_ADDR-1:0];
    reg  [STEP_BITS-1:0]  steps;        // as far as the longest delay
    reg                   rested;       // no step has been taken since reset: the next input is a sample's first
    reg  [SPIKE_ADDR-1:0] frame;
    reg  [INPUT_ADDR-1:0] inputs_at, input_count;

    // Places in the two rings of words, some words back.
    wire [SPIKE_ADDR-1:0] frame_back =
        frame >= back_words ? frame - back_words : frame - back_words + SPIKE_LAST + 1'b1;
    reg  [SPIKE_ADDR-1:0] back_frame;   // the same, known from the clock after FETCH on
    wire [INPUT_ADDR-1:0] inputs_back =
        inputs_at >= back_inputs ? inputs_at - back_inputs : inputs_at - back_inputs + INPUT_LAST + 1'b1;

    assign in_ready = state == INPUT;
    wire take_input = in_ready && in_valid;
    wire [INPUT_ADDR-1:0] input_index = in_first ? {INPUT_ADDR{1'b0}} : input_count;
    wire last_input = input_index == INPUT_STEP - 1'b1;

    // ---- Scan: the source's places in order. What a place holds follows one clock later; registers see it, and hold it
    // for the walk if there is an event.
    reg                    scanning;    // there are places left
    reg  [OUTER_BITS-1:0]  outer;
    reg  [ROW_BITS-1:0]    row;
    reg  [COL_BITS-1:0]    col;
    reg  [WORD_BITS-1:0]   word;
    reg  [SPIKE_ADDR-1:0]  spike_at;
    reg  [INPUT_ADDR-1:0]  input_at;
    reg  [WEIGHT_ADDR-1:0] outer_at, word_at;
    reg                    read_valid;  // the memories' outputs are of a place
    reg  [WEIGHT_ADDR-1:0] read_weight;
    reg                    seen_valid;
    reg  [LANES-1:0]       seen_events;
    reg  [LANE_SPIKES-1:0] seen_spikes;
    reg  signed [IN_BITS-1:0] seen_input;
    reg  [WEIGHT_ADDR-1:0] seen_weight;
    reg  [FAN_BITS-1:0]    seen_row_fan, seen_col_fan;
    reg  [ROW_TAP_ADDR-1:0] seen_row_tap;
    reg  [COL_TAP_ADDR-1:0] seen_col_tap;
    reg                    held_valid;  // events of a place are left
    reg  [LANES-1:0]       held_events, held_rest;  // and those behind the first of them
    reg  [LANE_SPIKES-1:0] held_spikes;
    reg  signed [FACTOR_BITS-1:0] held_factor;
    reg  [WEIGHT_ADDR-1:0] held_weight;
    reg  [FAN_BITS:0]      held_row_left, held_col_left;  // less two: below 0 at the last, here and below
    reg                    held_one;    // one event is left
    reg  [ROW_TAP_ADDR-1:0] held_row_tap;
    reg  [COL_TAP_ADDR-1:0] held_col_tap;

    wire word_end = word == word_last;
    wire col_end  = word_end && col == col_last;
    wire row_end  = col_end && row == row_last;

    wire [LANE_SPIKES-1:0]    spike_q;
    wire [LANES-1:0]          spike_any;
    wire signed [IN_BITS-1:0] input_q;
    wire [FAN_BITS-1:0]       row_fan, col_fan;
    wire [ROW_TAP_ADDR-1:0]   row_first;
    wire [COL_TAP_ADDR-1:0]   col_first;

    wire always_one = from_one || pooling;
    wire [LANES-1:0] found = always_one || from_input ? one_event(always_one || input_q != 0) : spike_any;
    wire [LANES-1:0] seen_rest = seen_events & (seen_events - 1'b1);
    wire [LANES-1:0] next_rest = held_rest & (held_rest - 1'b1);
    wire [WEIGHT_ADDR-1:0] which = place_of(held_events & ~held_rest);
    wire counts_spikes = SPIKE_BITS > 1 && !always_one && !from_input;
    wire [GROUP_BITS:0] group_first = {1'b0, group_last} - 1'b1;
    wire walker_free;
    wire take_event = held_valid && walker_free;
    wire scan_step  = !held_valid || (held_one && walker_free);
    wire scan_read  = scan_step && scanning && state == SCAN;

    function [LANES-1:0] one_event(input bit_0);
        begin
            one_event    = 0;
            one_event[0] = bit_0;
        end
    endfunction

    // What the weights of a place's events are multiplied by.
    function signed [FACTOR_BITS-1:0] factor_of(input signed [IN_BITS-1:0] value);
        reg signed [FACTOR_BITS+IN_BITS-1:0] wide;
        begin
            wide      = {{FACTOR_BITS{value[IN_BITS-1]}}, value};
            factor_of = wide[FACTOR_BITS-1:0] <<< shift;
        end
    endfunction

    // The same of the spikes of the first event.
    function signed [FACTOR_BITS-1:0] spikes_of(input [LANES-1:0] bits, input [LANE_SPIKES-1:0] counts);
        reg [FACTOR_BITS+SPIKE_BITS-1:0] wide;
        integer i;
        begin
            wide = 0;
            for (i = 0; i < LANES; i = i + 1)
                if (bits[i]) wide[SPIKE_BITS-1:0] = wide[SPIKE_BITS-1:0] | counts[i*SPIKE_BITS+:SPIKE_BITS];
            spikes_of = wide[FACTOR_BITS-1:0] << shift;
        end
    endfunction

    // Where the one bit stands.
    function [WEIGHT_ADDR-1:0] place_of(input [LANES-1:0] bits);
        integer i;
        begin
            place_of = 0;
            for (i = 0; i < LANES; i = i + 1)
                if (bits[i]) place_of = place_of | i[WEIGHT_ADDR-1:0];
        end
    endfunction

    // ---- Walk: one event at a time, every tap of its row with every tap of its column, a word of potentials a clock.
    reg                    walking;
    reg  [ROW_TAP_ADDR-1:0] row_tap;
    reg  [COL_TAP_ADDR-1:0] col_tap, col_tap_first;
    reg  [FAN_BITS:0]      row_left, col_left, col_left_first;
    reg  [GROUP_BITS:0]    group_left;
    reg  [STATE_ADDR-1:0]  walk_state;
    reg  [WEIGHT_ADDR-1:0] walk_weight, walk_weight_first;
    reg  signed [FACTOR_BITS-1:0] walk_factor;
    reg                    walk_last;   // the tap at work is the event's last
    reg                    stall;
    wire group_end = group_left[GROUP_BITS], fan_end = col_left[FAN_BITS], walk_end = row_left[FAN_BITS];
    assign walker_free = !walking || (walk_last && !stall);

    // Stages: a, taps are read; b, addresses are sums; c, the weights are read; d, the potentials are, and the weights
    // multiplied; e, both are added; f, the sum is written. What reads a word that is still on its way to f waits in c.
    // A pool's words of spikes are read in c, and joined in d.
    reg                    a_valid, b_valid, c_valid, d_valid, e_valid, f_valid;
    reg                    a_last, b_last, c_last, d_pools, d_last;
    reg  [STATE_ADDR-1:0]  a_state, b_state, c_state, d_state, e_state, f_state;
    reg  [WEIGHT_ADDR-1:0] a_weight, b_weight, c_weight;
    reg  signed [FACTOR_BITS-1:0] a_factor, b_factor, c_factor, d_factor;
    reg  [LANES*WEIGHT_BITS-1:0]  d_weights;
    reg  [LANES*PRODUCT_BITS-1:0] e_products, e_halves;  // without a multiplier: two sums, not added yet
    reg  [LANES*WHOLE_BITS-1:0]   e_words, f_sums;
    reg  [LANE_SPIKES-1:0] pooled;
    wire [LANE_SPIKES-1:0] pooled_next;
    wire pool_done = d_pools && d_last;
    wire [STATE_ADDR-1:0]  row_state, col_state;
    wire [WEIGHT_ADDR-1:0] row_weight, col_weight;
    reg  [1:0]             c_wait;  // while c stalls: clocks until the word is written that it reads
    wire adds = b_valid && !pooling;
    wire again_c = adds && c_valid && c_state == b_state;
    wire again_d = adds && d_valid && d_state == b_state;
    wire again_e = adds && e_valid && e_state == b_state;
    wire idle = !read_valid && !seen_valid && !held_valid && !walking && !a_valid && !b_valid && !c_valid && !d_valid && !e_valid
                && !f_valid && !d_pools;

    snn_rom #(.WIDTH(FAN_BITS + ROW_TAP_ADDR), .DEPTH(ROW_WORDS), .ADDR(ROW_ADDR), .HEX(HEX), .FILE("rows.hex")) rows (
        .clk(clk), .en(scan_read), .addr(row_base + row_index(row)), .data({row_fan, row_first}));
    snn_rom #(.WIDTH(FAN_BITS + COL_TAP_ADDR), .DEPTH(COL_WORDS), .ADDR(COL_ADDR), .HEX(HEX), .FILE("columns.hex")) columns (
        .clk(clk), .en(scan_read), .addr(col_base + col_index(col)), .data({col_fan, col_first}));
    snn_rom #(.WIDTH(STATE_ADDR + WEIGHT_ADDR), .DEPTH(ROW_TAPS), .ADDR(ROW_TAP_ADDR), .HEX(HEX), .FILE("row_taps.hex"))
        row_taps (.clk(clk), .en(!stall), .addr(row_tap), .data({row_state, row_weight}));
    snn_rom #(.WIDTH(STATE_ADDR + WEIGHT_ADDR), .DEPTH(COL_TAPS), .ADDR(COL_TAP_ADDR), .HEX(HEX), .FILE("column_taps.hex"))
        column_taps (.clk(clk), .en(!stall), .addr(col_tap), .data({col_state, col_weight}));

    function [ROW_ADDR-1:0] row_index(input [ROW_BITS-1:0] count);
        begin
            row_index               = 0;
            row_index[ROW_BITS-1:0] = count;
        end
    endfunction

    function [COL_ADDR-1:0] col_index(input [COL_BITS-1:0] count);
        begin
            col_index               = 0;
            col_index[COL_BITS-1:0] = count;
        end
    endfunction

    // ---- Pass: word after word of a layer's potentials.
    reg  [PASS_BITS-1:0]   pass_word, repeat_word;
    reg  [STATE_ADDR-1:0]  pass_state, pass_value, ahead_state, write_at;
    reg                    write_kept;
    reg                    pass_end;        // the word at work is the last; known one clock after it begins
    reg  [SPIKE_ADDR-1:0]  pass_spike, ahead_spike;
    reg  [WEIGHT_ADDR-1:0] load_at;
    reg                    loading;         // more parameters of the word after this one are to be read
    reg  [7:0]             load, emitted;
    reg  [3:0]             bit_at;
    reg  [LANES-1:0]       fired, emit_left;
    reg  [LANE_SPIKES-1:0] spikes_so_far;
    reg  [SPIKE_BITS-1:0]  fires_so_far;    // clocks that a word has fired
    reg  [LANES*STATE_BITS-1:0] base;       // what leaks, and before that the potential
    reg  [LANES*KEPT_BITS-1:0]  kept;       // what is left of it, so far; one more bit than a state, as it is halved
    reg  [LANES-1:0]            lost;       // whether bits of it that are 1 have been shifted out
    wire [LANES*STATE_BITS-1:0] base_next;
    wire [LANES*KEPT_BITS-1:0]  kept_next;
    wire [LANES-1:0]            fired_next, lost_next;
    wire [LANE_SPIKES-1:0]      spikes_next;
    wire several   = SPIKE_BITS > 1 && more != 0;
    wire fire_last = !several || fires_so_far == more || fired_next == 0;
    wire fire_done = state == FIRE && fire_last;
    wire last_bit    = bit_at == 4'd12;
    wire filter_done = state == FILTER && last_bit;
    wire word_done   = state == LATE || (state == LEAK && last_bit && !(subtracts && late));
    wire turn        = (state == LOAD || (word_done && !pass_end)) && !loading;  // a word begins in the next clock
    // The next word's potential may be read while this one leaks, if nothing else is needed for it.
    reg                    primed;          // it is at the memory's output
    wire prime       = state == LEAK && bit_at == 4'd11 && !filtered && !late && !emits;
    wire load_issue  = state == READ || turn || loading;
    wire load_last   = loading ? load == LAST_LOAD : LOADS == 1;
    wire leaking_current = state == FILTER;
    reg  [12:0] factor;           // what is left of keep or filter_keep, its next bit the lowest
    wire [3:0] leak_from = state == CURRENT ? filter_from : keep_from;

    // ---- Memories that are written. Potentials stand in two: events change whole weights, a pass changes 64ths, too.
    // What a pass leaves is written one clock after it is in 'kept'.
    wire [LANES*WHOLE_BITS-1:0] whole_q, kept_whole;
    wire [LANES*6-1:0]          parts_q, kept_parts;
    wire                  state_read    = turn || prime || filter_done || (c_valid && !stall);
    wire [STATE_ADDR-1:0] state_read_at = c_valid ? c_state : leaking_current ? pass_value : ahead_state;
    wire clearing = state == CLEAR;
    snn_ram #(.WIDTH(LANES * WHOLE_BITS), .DEPTH(STATE_WORDS), .ADDR(STATE_ADDR)) wholes (
        .clk(clk), .read(state_read), .read_addr(state_read_at), .read_data(whole_q),
        .write(f_valid || clearing || write_kept),
        .write_addr(f_valid ? f_state : clearing ? ahead_state : write_at),
        .write_data(f_valid ? f_sums : clearing ? {LANES * WHOLE_BITS{1'b0}} : kept_whole));
    snn_ram #(.WIDTH(LANES * 6), .DEPTH(STATE_WORDS), .ADDR(STATE_ADDR)) parts (
        .clk(clk), .read(state_read), .read_addr(state_read_at), .read_data(parts_q),
        .write(clearing || write_kept),
        .write_addr(clearing ? ahead_state : write_at),
        .write_data(clearing ? {LANES * 6{1'b0}} : kept_parts));

    snn_ram #(.WIDTH(LANE_SPIKES), .DEPTH(SPIKE_WORDS), .ADDR(SPIKE_ADDR)) spikes (
        .clk(clk),
        .read(turn || (pooling ? c_valid : scan_read)),
        .read_addr(pooling ? frame + c_weight[SPIKE_ADDR-1:0] : back_frame + (state == SCAN ? spike_at : ahead_spike)),
        .read_data(spike_q),
        .write(pool_done || (fire_done && spiking)),
        .write_addr(frame + pass_spike),
        .write_data(pool_done ? pooled_next : spikes_next));

    snn_ram #(.WIDTH(IN_BITS), .DEPTH(INPUT_WORDS), .ADDR(INPUT_ADDR)) inputs (
        .clk(clk),
        .read(scan_read),
        .read_addr(input_at),
        .read_data(input_q),
        .write(take_input),
        .write_addr(inputs_at + input_index),
        .write_data(in_data));

    assign weight_en   = state == SCAN ? !stall : load_issue;
    assign weight_addr = b_valid ? b_weight : load_at;

    // ---- Lanes.
    wire was_fired_known = steps != 0;
    genvar n;
    generate
        for (n = 0; n < LANES; n = n + 1) begin : lanes
            wire signed [WEIGHT_BITS-1:0] weight = weight_data[n*WEIGHT_BITS+:WEIGHT_BITS];
            wire signed [STATE_BITS-1:0]  read   = {whole_q[n*WHOLE_BITS+:WHOLE_BITS], parts_q[n*6+:6]};
            wire signed [STATE_BITS-1:0]  own    = base[n*STATE_BITS+:STATE_BITS];
            wire signed [STATE_BITS:0]    part   = kept[n*KEPT_BITS+:KEPT_BITS];

            wire [SPIKE_BITS-1:0] most  = pooled[n*SPIKE_BITS+:SPIKE_BITS];
            wire [SPIKE_BITS-1:0] spike = spike_q[n*SPIKE_BITS+:SPIKE_BITS];
            assign spike_any[n] = spike != 0;
            assign pooled_next[n*SPIKE_BITS+:SPIKE_BITS] = spike > most ? spike : most;

            // An event's weight, multiplied, and the word that it is added to.
            wire signed [WEIGHT_BITS-1:0] factor_a = d_weights[n*WEIGHT_BITS+:WEIGHT_BITS];
            wire signed [WHOLE_BITS-1:0]  whole    = e_words[n*WHOLE_BITS+:WHOLE_BITS];
            wire signed [WHOLE_BITS-1:0]  term     = term_of(e_products[n*PRODUCT_BITS+:PRODUCT_BITS]);
            wire signed [WHOLE_BITS-1:0]  half     = term_of(e_halves[n*PRODUCT_BITS+:PRODUCT_BITS]);
            always @(posedge clk) begin
                if (n < MULTIPLIERS) e_products[n*PRODUCT_BITS+:PRODUCT_BITS] <= factor_a * d_factor;
                else begin
                    e_products[n*PRODUCT_BITS+:PRODUCT_BITS] <= added_up(factor_a, d_factor, 1'b0);
                    e_halves[n*PRODUCT_BITS+:PRODUCT_BITS]   <= added_up(factor_a, d_factor, 1'b1);
                end
                f_sums[n*WHOLE_BITS+:WHOLE_BITS] <= n < MULTIPLIERS ? whole + term : whole + (term + half);
            end

            // Parameters come WEIGHT_BITS at a time, the lowest first, while the word before is at work. The last stays
            // at the memory's output.
            reg  [LOAD_BITS-1:0] coming, parameters;
            wire [LOAD_BITS-1:0] arrived = shift_in(weight, coming);
            always @(posedge clk) begin
                if (loading) coming <= arrived;
                if (turn) parameters <= arrived;
            end
            wire signed [STATE_BITS-1:0] threshold = threshold_of(parameters[BIAS_BITS+:THRESH_BITS]);
            wire signed [STATE_BITS-1:0] value, bias;
            wire keeps;
            if (VALUE_BITS > 0) begin : has_value
                wire [VALUE_BITS-1:0] bits = parameters[BIAS_BITS+THRESH_BITS+:VALUE_BITS];
                assign value = {{STATE_BITS - VALUE_BITS - 6{bits[VALUE_BITS-1]}}, bits, 6'd0};
            end else begin : no_value
                assign value = {STATE_BITS{1'b0}};
            end
            if (BIAS_BITS > 0) begin : has_bias
                // A primed potential comes in the clock of its parameters; these begin with the bias, which is in
                // registers then, unlike the last of them.
                wire [LOAD_BITS-1:0] own_parameters = primed ? arrived : parameters;
                wire [BIAS_BITS-1:0] bits = own_parameters[0+:BIAS_BITS];
                assign bias = {{STATE_BITS - BIAS_BITS - 6{bits[BIAS_BITS-1]}}, bits, 6'd0};
            end else begin : no_bias
                assign bias = {STATE_BITS{1'b0}};
            end
            if (KEEP_BITS > 0) begin : has_keeps
                wire [12:0] of_neuron = leaking_current ? parameters[BIAS_BITS+THRESH_BITS+VALUE_BITS+13+:13]
                                                        : parameters[BIAS_BITS+THRESH_BITS+VALUE_BITS+:13];
                assign keeps = of_neuron[bit_at];
            end else begin : no_keeps
                assign keeps = factor[0];
            end

            // The potential of this step, and what a spike makes of it: nothing is left of it to leak, or 'value' is
            // set or taken off, in one more clock.
            wire signed [STATE_BITS-1:0] potential = read + (filtered ? own : bias);
            wire put_back = late && !subtracts && was_fired_known && spike_any[n];
            wire signed [STATE_BITS-1:0] now = clip(put_back ? value : potential, 1'b0);
            assign fired_next[n] = spiking && above(own, threshold);
            assign spikes_next[n*SPIKE_BITS+:SPIKE_BITS] = one_more(spikes_so_far[n*SPIKE_BITS+:SPIKE_BITS], fired_next[n]);
            wire dropped = VALUE_BITS == 0 && fired[n] && !late && !subtracts;
            if (VALUE_BITS > 0) begin : has_reset
                wire again = SPIKE_BITS > 1 && state == FIRE;  // in the clock that it fires in, as it may fire again
                wire spent = again ? fired_next[n] : fired[n];
                wire signed [STATE_BITS-1:0] after = !spent || late ? own : subtracts ? own - value : value;
                assign base_next[n*STATE_BITS+:STATE_BITS] =
                    state == CURRENT ? clip(read, 1'b1) : state == RESET || again ? after : now;
            end else begin : no_reset
                assign base_next[n*STATE_BITS+:STATE_BITS] = state == CURRENT ? clip(read, 1'b1) : now;
            end

            // Leak: 'own' times what it keeps of 4096, rounded toward 0, bit by bit: half of the sum so far, plus 'own'. A late
            // reset takes 'value' off in one more clock.
            wire lose = lost[n] || part[0];
            wire round_up = last_bit && own[STATE_BITS-1] && lose;
            wire signed [STATE_BITS:0] halved = part >>> 1;
            wire signed [STATE_BITS:0] addend = keeps && !dropped ? {own[STATE_BITS-1], own} : {STATE_BITS + 1{1'b0}};
            wire signed [STATE_BITS:0] leaked = halved + addend + {{STATE_BITS{1'b0}}, round_up};
            assign lost_next[n] = lose;
            if (VALUE_BITS > 0) begin : has_late
                wire signed [STATE_BITS:0] less = fired[n] ? part - {value[STATE_BITS-1], value} : part;
                assign kept_next[n*KEPT_BITS+:KEPT_BITS] = state == LATE ? less : leaked;
            end else begin : no_late
                assign kept_next[n*KEPT_BITS+:KEPT_BITS] = leaked;
            end
            assign {kept_whole[n*WHOLE_BITS+:WHOLE_BITS], kept_parts[n*6+:6]} = part[STATE_BITS-1:0];
        end
    endgenerate

    function [SPIKE_BITS-1:0] one_more(input [SPIKE_BITS-1:0] count, input fires);
        begin
            one_more = fires ? count + 1'b1 : count;
        end
    endfunction

    // A half of a product without a multiplier: every other of the shifted weights, added in pairs.
    function signed [PRODUCT_BITS-1:0] added_up(
        input signed [WEIGHT_BITS-1:0] a, input signed [FACTOR_BITS-1:0] b, input odd);
        reg [FACTOR_BITS*PRODUCT_BITS-1:0] terms;
        reg signed [PRODUCT_BITS-1:0] wide;
        integer i, apart;
        begin
            wide = {{FACTOR_BITS{a[WEIGHT_BITS-1]}}, a};
            for (i = 0; i < FACTOR_BITS; i = i + 1)
                terms[i*PRODUCT_BITS+:PRODUCT_BITS] = !b[i] || i[0] != odd ? 0 : i == FACTOR_BITS - 1 ? -(wide <<< i) : wide <<< i;
            for (apart = 2; apart < FACTOR_BITS; apart = 2 * apart)
                for (i = 0; i + apart < FACTOR_BITS; i = i + 1)
                    if (i % (2 * apart) < 2)
                        terms[i*PRODUCT_BITS+:PRODUCT_BITS] =
                            terms[i*PRODUCT_BITS+:PRODUCT_BITS] + terms[(i+apart)*PRODUCT_BITS+:PRODUCT_BITS];
            added_up = odd ? terms[PRODUCT_BITS+:PRODUCT_BITS] : terms[0+:PRODUCT_BITS];
        end
    endfunction

    // A product as what is added to a potential's bits above its 64ths.
    function signed [WHOLE_BITS-1:0] term_of(input signed [PRODUCT_BITS-1:0] product);
        reg signed [WHOLE_BITS+PRODUCT_BITS-1:0] wide;
        begin
            wide    = {{WHOLE_BITS{product[PRODUCT_BITS-1]}}, product};
            term_of = wide[WHOLE_BITS-1:0];
        end
    endfunction

    function [LOAD_BITS-1:0] shift_in(input [WEIGHT_BITS-1:0] chunk, input [LOAD_BITS-1:0] so_far);
        reg [LOAD_BITS+WEIGHT_BITS-1:0] both;
        begin
            both     = {chunk, so_far};
            shift_in = both[WEIGHT_BITS+:LOAD_BITS];
        end
    endfunction

    // In 64ths; one more bit than a threshold has keeps it above 0.
    function signed [STATE_BITS-1:0] threshold_of(input [THRESH_BITS-1:0] bits);
        begin
            threshold_of                  = 0;
            threshold_of[6+:THRESH_BITS] = bits;
        end
    endfunction

    // x > y by the sign of y - x: whole weights, and whether x has 64ths as the carry (y has none).
    function above(input signed [STATE_BITS-1:0] x, input signed [STATE_BITS-1:0] y);
        reg [WHOLE_BITS+1:0] less;
        begin
            less  = {y[STATE_BITS-1], y[STATE_BITS-1:6], 1'b1}
                    + {~x[STATE_BITS-1], ~x[STATE_BITS-1:6], x[5:0] == 6'd0};
            above = less[WHOLE_BITS+1];
        end
    endfunction

    // Potentials stop below 2^29, currents at 2^30.
    function signed [STATE_BITS-1:0] clip(input signed [STATE_BITS-1:0] x, input current);
        begin
            clip = x;
            if (CLIP != 0) begin
                if (x > limit(current)) clip = limit(current);
                else if (x < -limit(current)) clip = -limit(current);
            end
        end
    endfunction

    function signed [STATE_BITS-1:0] limit(input current);
        begin
            limit = 0;
            if (CLIP != 0) begin
                if (current) limit[STATE_BITS-2] = 1'b1;
                else limit[STATE_BITS-4:0] = ~0;
            end
        end
    endfunction

    // ---- Output: the potentials of the layer that emits, one by one.
    assign out_valid = state == EMIT;
    assign out_data  = out_of(of_lane(base, emitted));
    assign out_last  = pass_end && emit_left == LAST_EMIT;

    function [STATE_BITS-1:0] of_lane(input [LANES*STATE_BITS-1:0] x, input [7:0] lane);
        integer i;
        begin
            of_lane = 0;
            for (i = 0; i < LANES; i = i + 1)
                if (lane == i[7:0]) of_lane = of_lane | x[i*STATE_BITS+:STATE_BITS];
        end
    endfunction

    function [OUT_BITS-1:0] out_of(input signed [STATE_BITS-1:0] x);
        reg signed [STATE_BITS-1:0] shifted;
        begin
            shifted = x >>> OUT_SHIFT;
            out_of  = shifted[OUT_BITS-1:0];
        end
    endfunction

    always @(posedge clk) begin
        rec_valid <= pool_done || (fire_done && spiking);
        rec_layer <= layer;
        rec_word  <= pass_word;
        rec_bits  <= pool_done ? pooled_next : spikes_next;

        // Scan.
        if (scan_step) begin
            read_valid    <= scanning && state == SCAN;
            read_weight   <= weight_base + outer_at + word_at;
            seen_valid    <= read_valid;
            seen_weight   <= read_weight;
            seen_events   <= found;
            seen_spikes   <= spike_q;
            seen_input    <= from_input ? input_q : IN_ONE;
            seen_row_fan  <= row_fan;
            seen_col_fan  <= col_fan;
            seen_row_tap  <= row_first;
            seen_col_tap  <= col_first;
            held_valid    <= seen_valid && seen_events != 0 && seen_row_fan != 0 && seen_col_fan != 0;
            held_events   <= seen_events;
            held_spikes   <= seen_spikes;
            held_rest     <= seen_rest;
            held_one      <= seen_rest == 0;
            held_weight   <= seen_weight;
            held_factor   <= factor_of(seen_input);
            held_row_tap  <= seen_row_tap;
            held_col_tap  <= seen_col_tap;
            held_row_left <= {1'b0, seen_row_fan} - TWO_TAPS;
            held_col_left <= {1'b0, seen_col_fan} - TWO_TAPS;
            if (scanning && state == SCAN) begin
                spike_at <= spike_at + 1'b1;
                input_at <= input_at + 1'b1;
                word     <= word_end ? {WORD_BITS{1'b0}} : word + 1'b1;
                word_at  <= word_end ? {WEIGHT_ADDR{1'b0}} : word_at + word_step;
                if (word_end) col <= col_end ? {COL_BITS{1'b0}} : col + 1'b1;
                if (col_end) row <= row_end ? {ROW_BITS{1'b0}} : row + 1'b1;
                if (row_end) begin
                    outer    <= outer + 1'b1;
                    outer_at <= outer_at + outer_step;
                    scanning <= outer != outer_last;
                end
            end
        end else if (take_event) begin
            held_events <= held_rest;
            held_rest   <= next_rest;
            held_one    <= next_rest == 0;
        end

        // Walk.
        if (take_event) begin
            walking           <= 1'b1;
            walk_last         <= group_first[GROUP_BITS] && held_col_left[FAN_BITS] && held_row_left[FAN_BITS];
            row_tap           <= held_row_tap;
            row_left          <= held_row_left;
            col_tap           <= held_col_tap;
            col_tap_first     <= held_col_tap;
            col_left          <= held_col_left;
            col_left_first    <= held_col_left;
            group_left        <= group_first;
            walk_state        <= state_base;
            walk_weight       <= held_weight + which;
            walk_weight_first <= held_weight + which;
            walk_factor       <= counts_spikes ? spikes_of(held_events & ~held_rest, held_spikes) : held_factor;
        end else if (walking && !stall) begin
            walk_last <= !group_end ? group_left == 0 && fan_end && walk_end
                         : group_first[GROUP_BITS] && (!fan_end ? col_left == 0 && walk_end
                                                                : col_left_first[FAN_BITS] && row_left == 0);
            if (!group_end) begin
                group_left  <= group_left - 1'b1;
                walk_state  <= walk_state + 1'b1;
                walk_weight <= walk_weight + (from_input || from_one ? WEIGHT_ONE : WEIGHT_LANES);
            end else begin
                group_left  <= group_first;
                walk_state  <= state_base;
                walk_weight <= walk_weight_first;
                if (!fan_end) begin
                    col_left <= col_left - 1'b1;
                    col_tap  <= col_tap + 1'b1;
                end else begin
                    col_left <= col_left_first;
                    col_tap  <= col_tap_first;
                    row_left <= row_left - 1'b1;
                    row_tap  <= row_tap + 1'b1;
                    if (walk_end) walking <= 1'b0;
                end
            end
        end
        c_wait <= stall ? c_wait - 1'b1 : again_c ? 2'd3 : again_d ? 2'd2 : 2'd1;
        stall  <= stall ? c_wait != 2'd1 : again_c || again_d || again_e;
        back_frame <= frame_back;
        if (!stall) begin
            a_valid  <= walking;
            a_last   <= walk_last;
            a_state  <= walk_state;
            a_weight <= walk_weight;
            a_factor <= walk_factor;
            b_valid  <= a_valid;
            b_last   <= a_last;
            b_state  <= a_state + row_state + col_state;
            b_weight <= a_weight + row_weight + col_weight;
            b_factor <= a_factor;
            c_valid  <= b_valid;
            c_last   <= b_last;
            c_state  <= b_state;
            c_weight <= b_weight;
            c_factor <= b_factor;
        end
        d_valid   <= c_valid && !stall && !pooling;
        d_pools   <= c_valid && pooling;
        d_last    <= c_last;
        d_state   <= c_state;
        d_factor  <= c_factor;
        d_weights <= weight_data;
        e_valid   <= d_valid;
        e_state   <= d_state;
        e_words   <= whole_q;
        f_valid   <= e_valid;
        f_state   <= e_state;
        if (d_pools) pooled <= d_last ? {LANE_SPIKES{1'b0}} : pooled_next;
        if (pool_done) begin
            pass_word  <= pass_word + 1'b1;
            pass_spike <= pass_spike + 1'b1;
        end

        // Parameters of the word after the one at work.
        if (load_issue) begin
            load    <= loading ? load + 1'b1 : 8'd1;
            loading <= !load_last;
            load_at <= load_last && repeat_word == repeat_last ? weight_base : load_at + 1'b1;
            if (load_last) repeat_word <= repeat_word == repeat_last ? {PASS_BITS{1'b0}} : repeat_word + 1'b1;
        end

        pass_end   <= pass_word == pass_last;
        primed     <= prime;
        write_kept <= filter_done || word_done;
        write_at   <= filtered && word_done ? pass_value : pass_state;

        // The next word of the pass.
        if (turn) begin
            pass_state  <= ahead_state;
            pass_spike  <= ahead_spike;
            ahead_state <= ahead_state + 1'b1;
            ahead_spike <= ahead_spike + 1'b1;
        end

        case (state)
            INPUT:
            if (take_input) begin
                if (in_first || rested) begin
                    steps  <= 0;
                    rested <= 1'b1;
                end
                input_count <= last_input ? {INPUT_ADDR{1'b0}} : input_index + 1'b1;
                ahead_state <= 0;
                entry       <= 0;
                if (last_input) state <= rested || in_first ? CLEAR : LOOK;
            end

            CLEAR: begin
                ahead_state <= ahead_state + 1'b1;
                rested      <= 1'b0;
                if (ahead_state == STATE_LAST) state <= LOOK;
            end

            LOOK: state <= FETCH;  // the entry is read

            FETCH: begin
                scanning    <= 1'b1;
                outer       <= 0;
                row         <= 0;
                col         <= 0;
                word        <= 0;
                outer_at    <= 0;
                word_at     <= 0;
                spike_at    <= spike_base;
                input_at    <= inputs_back;
                pass_word   <= 0;
                repeat_word <= 0;
                pass_value  <= value_base;
                pass_spike  <= spike_base;
                ahead_state <= state_base;
                ahead_spike <= spike_base;
                load_at     <= weight_base;
                loading     <= 1'b0;
                pooled      <= 0;
                if (op == 2'd1 && back_steps > steps) begin  // a sample's beginning: nothing was there
                    entry <= entry + 1'b1;
                    state <= LOOK;
                end else state <= op == 2'd0 ? ADVANCE : op == 2'd2 ? READ : SCAN;
            end

            SCAN:
            if (!scanning && idle) begin
                entry <= entry + 1'b1;
                state <= LOOK;
            end

            READ: state <= LOAD;

            LOAD: if (!loading) state <= filtered ? CURRENT : POTENTIAL;

            CURRENT: begin
                base   <= base_next;
                kept   <= 0;
                lost   <= 0;
                bit_at <= leak_from;
                factor <= filter_keep;
                fired  <= 0;
                state  <= FILTER;
            end

            FILTER, LEAK: begin
                kept   <= kept_next;
                lost   <= lost_next;
                bit_at <= bit_at + 1'b1;
                factor <= factor >> 1;
                if (filter_done) state <= POTENTIAL;  // what is left of the current is written, the potential read
                else if (last_bit) state <= LATE;
                if (primed) base <= base_next;
            end

            POTENTIAL: begin
                base  <= base_next;
                state <= FIRE;
            end

            FIRE: begin
                fired     <= fired_next;
                kept      <= 0;
                lost      <= 0;
                bit_at    <= leak_from;
                factor    <= keep;
                emitted   <= 0;
                emit_left <= pass_end ? last_lanes : {LANES{1'b1}};
                if (several) base <= base_next;
                spikes_so_far <= fire_last ? {LANE_SPIKES{1'b0}} : spikes_next;
                fires_so_far  <= fire_last ? {SPIKE_BITS{1'b0}} : fires_so_far + 1'b1;
                if (fire_last) state <= emits ? EMIT : VALUE_BITS > 0 && !several ? RESET : LEAK;
            end

            EMIT:
            if (out_ready) begin
                emit_left <= emit_left >> 1;
                emitted   <= emitted + 1'b1;
                if (emit_left == LAST_EMIT) state <= VALUE_BITS > 0 ? RESET : LEAK;
            end

            RESET: begin
                base  <= base_next;
                state <= LEAK;
            end

            LATE: kept <= kept_next;

            default: begin  // ADVANCE
                frame     <= frame == FRAME_LAST ? {SPIKE_ADDR{1'b0}} : frame + FRAME_STEP;
                inputs_at <= inputs_at == INPUTS_LAST ? {INPUT_ADDR{1'b0}} : inputs_at + INPUT_STEP;
                if (steps != {STEP_BITS{1'b1}}) steps <= steps + 1'b1;
                state <= INPUT;
            end
        endcase

        if (word_done) begin
            pass_value <= pass_value + 1'b1;
            pass_word  <= pass_word + 1'b1;
            if (pass_end) entry <= entry + 1'b1;
            state <= pass_end ? LOOK : loading ? LOAD : filtered ? CURRENT : primed ? FIRE : POTENTIAL;
        end

        if (rst) begin
            state       <= INPUT;
            rested      <= 1'b1;
            input_count <= 0;
            spikes_so_far <= 0;
            fires_so_far  <= 0;
            frame       <= 0;
            inputs_at   <= 0;
            read_valid  <= 1'b0;
            seen_valid  <= 1'b0;
            held_valid  <= 1'b0;
            walking     <= 1'b0;
            a_valid     <= 1'b0;
            b_valid     <= 1'b0;
            c_valid     <= 1'b0;
            d_valid     <= 1'b0;
            e_valid     <= 1'b0;
            f_valid     <= 1'b0;
            stall       <= 1'b0;
            d_pools     <= 1'b0;
            loading     <= 1'b0;
            write_kept  <= 1'b0;
            primed      <= 1'b0;
            rec_valid   <= 1'b0;
        end
    end
endmodule

// Read-only memory: data follow the address by one clock and stay while en is low.
module snn_rom #(
    parameter WIDTH = 8,
    parameter DEPTH = 1,
    parameter ADDR  = 1,
    parameter HEX   = "",  // of the file's name, the beginning; without one nothing is read
    parameter FILE  = ""
) (
    input  wire             clk,
    input  wire             en,
    input  wire [ADDR-1:0]  addr,
    output reg  [WIDTH-1:0] data
);
    reg [WIDTH-1:0] words[0:DEPTH-1];
    generate
        if (HEX != "") begin : filled
            initial $readmemh({HEX, FILE}, words);
        end
    endgenerate
    always @(posedge clk) if (en) data <= words[addr];
endmodule

// Memory of one port to read and one to write. No word is read in the clock that writes it: what it would give is open.
module snn_ram #(
    parameter WIDTH = 8,
    parameter DEPTH = 1,
    parameter ADDR  = 1
) (
    input  wire             clk,
    input  wire             read,
    input  wire [ADDR-1:0]  read_addr,
    output reg  [WIDTH-1:0] read_data,
    input  wire             write,
    input  wire [ADDR-1:0]  write_addr,
    input  wire [WIDTH-1:0] write_data
);
    (* no_rw_check *) reg [WIDTH-1:0] words[0:DEPTH-1];
    always @(posedge clk) begin
        if (read) read_data <= words[read_addr];
        if (write) words[write_addr] <= write_data;
    end
endmodule

`default_nettype wire
