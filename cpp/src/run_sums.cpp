#include "run_sums.hpp"

#include <algorithm>
#include <array>
#include <cstring>

#include "kernels.hpp"

namespace edgeprune {
namespace {

constexpr std::size_t short_run = 127;  // samples

// n ln n less what the comparisons account for.
const std::uint64_t* beyond() {
    static const std::array<std::uint64_t, short_run + 1> made = [] {
        std::array<std::uint64_t, short_run + 1> terms{};
        for (std::size_t n = small_cell + 1; n < terms.size(); ++n)
            terms[n] = FixedTerm::table()[n] - FixedTerm::table()[small_cell];
        return terms;
    }();
    return made.data();
}

void look_up(std::uint32_t* counters, std::size_t codes, std::size_t pitch, std::uint32_t* totals, RunState& state) {
    const std::uint64_t* term = FixedTerm::table();
    for (std::size_t pair = 0; pair < half_channels / 2; ++pair) {
        std::uint32_t* own = counters + pair * pitch * 2;
        std::uint32_t* total = totals + pair * codes * 2;
        std::uint64_t joint[2] = {};
        std::uint32_t cells[2] = {};
        for (std::size_t at = 0; at < codes * 2; at += 2)
            for (std::size_t c = 0; c < 2; ++c) {
                const std::uint32_t n = own[at + c];
                joint[c] += term[n];
                cells[c] += n != 0;
                total[at + c] += n;
                own[at + c] = 0;
            }
        for (std::size_t c = 0; c < 2; ++c) {
            state.beyond[place_of(pair * 2 + c)] += joint[c];
            state.above[0][place_of(pair * 2 + c)] += cells[c];
        }
    }
}

}  // namespace

void RunSums::reset(std::size_t groups, std::size_t bins, std::size_t pitch) {
    codes_ = (bins + codes_together - 1) / codes_together * codes_together;
    pitch_ = pitch;
    const std::size_t size = codes_ * half_channels;
    per_bin_.assign(groups * halves * size, 0);
    totals_.assign(groups * halves * size, 0);
    cells_.assign(groups * group_channels, 0);
    joint_.assign(groups * group_channels, 0);
    groups_.assign(groups, Group{});
    for (std::size_t h = 0; h < groups * halves; ++h)
        groups_[h / halves].half[h % halves] = {per_bin_.data() + h * size, {}, {}};
}

void RunSums::close(std::size_t group, std::uint32_t* counters, std::size_t samples) {
    Group& own = groups_[group];
    if (own.unflushed + samples > most_samples) flush(group);
    for (std::size_t h = 0; h < halves; ++h) {
        std::uint32_t* from = counters + h * half_channels * pitch_;
        if (samples <= short_run) kernels().close_short_run(from, codes_, pitch_, own.half[h], beyond());
        else look_up(from, codes_, pitch_, totals_.data() + (group * halves + h) * half_channels * codes_, own.half[h]);
    }
    own.unflushed += samples;
    own.samples += samples;
    ++own.runs;
    own.shortest = std::min<std::uint64_t>(own.shortest, samples);
    own.columns += FixedTerm::table()[samples];
}

void RunSums::flush(std::size_t group) {
    const std::uint64_t* term = FixedTerm::table();
    for (std::size_t h = 0; h < halves; ++h) {
        RunState& half = groups_[group].half[h];
        for (std::size_t c = 0; c < half_channels; ++c) {
            const std::size_t channel = (group * halves + h) * half_channels + c, place = place_of(c);
            FixedSum sum = half.beyond[place];
            for (std::size_t m = 1; m < small_cell; ++m)
                sum += FixedSum{half.above[m][place]} * (term[m + 1] - term[m]);
            joint_[channel] += sum;
            cells_[channel] += half.above[0][place];
        }
        std::memset(half.above, 0, sizeof half.above);
        std::memset(half.beyond, 0, sizeof half.beyond);
        std::uint32_t* totals = totals_.data() + (group * halves + h) * half_channels * codes_;
        for (std::size_t at = 0; at < codes_; at += codes_together)
            for (std::size_t odd = 0; odd < 2; ++odd) {
                Fours both;  // pairs `odd` and `odd` + 2
                std::memcpy(&both, half.per_bin + at * half_channels + odd * 16, sizeof both);
                add_to(totals + (odd * codes_ + at) * 2, Fours(both & 0xffff));
                add_to(totals + ((odd + 2) * codes_ + at) * 2, Fours(both >> 16));
            }
        std::fill_n(half.per_bin, codes_ * half_channels, std::uint16_t{0});
    }
    groups_[group].unflushed = 0;
}

ClassSums RunSums::sums(std::size_t channel) {
    const std::size_t group = channel / group_channels;
    if (groups_[group].unflushed != 0) flush(group);
    const std::uint32_t* totals = totals_.data() + channel / 2 * codes_ * 2 + channel % 2;
    for (std::size_t b = 0; b < codes_; ++b) column_[b] = totals[b * 2];
    const Group& own = groups_[group];
    return {column_, joint_[channel], own.columns, cells_[channel], own.samples, own.runs, own.shortest};
}

}  // namespace edgeprune
