#include "edgeprune/jmi.hpp"

#include <algorithm>
#include <limits>
#include <stdexcept>

#include "edgeprune/estimators.hpp"
#include "edgeprune/parallel.hpp"
#include "tally.hpp"

namespace edgeprune {
namespace {

// Tables of two channels' codes against each other and the label, one class after the other: a class's table stays
// in the first-level cache and is reduced when the class ends, so neither time nor memory grows with the number
// of classes.
//
// Two neighbouring channels share one byte per sample. In a class of many samples one increment counts both
// against the chosen channel, and each one's table is a margin of theirs; in a class of few that table would have
// more cells than samples, and each channel is counted for itself.
class PairTables {
public:
    PairTables(const std::uint8_t* codes, std::size_t channels, std::size_t bins, const Labels& labels, bool correct,
               std::size_t threads)
        : channels_(channels), bins_(bins), order_(labels), correct_(correct),
          threads_(crew_size(threads, (channels + 1) / 2, 1)), base_(labels.count), scratch_(threads_) {
        if (bins == 0 || bins > 16) throw std::invalid_argument("bins must be 1..16 for pair tables");
        const std::size_t samples = labels.count;
        packed_.resize((channels + 1) / 2 * samples);
        for (std::size_t pair = 0; pair < (channels + 1) / 2; ++pair) {
            // A caller may write to its codes meanwhile: each is read once, and only the copy is used.
            const volatile std::uint8_t* a = codes + 2 * pair * samples;
            const volatile std::uint8_t* b = 2 * pair + 1 < channels ? a + samples : a;
            std::uint8_t* out = packed_.data() + pair * samples;
            for (std::size_t s = 0; s < samples; ++s) {
                const std::size_t first = a[order_.samples[s]], second = b[order_.samples[s]];
                if (first >= bins || second >= bins) throw std::invalid_argument("a code is not below bins");
                out[s] = static_cast<std::uint8_t>(first * bins + second);
            }
        }
        for (std::size_t both = 0; both < bins * bins; ++both) {
            part_[0][both] = static_cast<std::uint8_t>(both / bins);
            part_[1][both] = static_cast<std::uint8_t>(both % bins);
        }
        for (const ClassOrder::Run& run : order_.runs) class_term_ += FixedTerm::of(run.end - run.begin);
    }

    // Information of every wanted channel together with channel `other`, or alone where it is npos.
    void against(std::size_t other, const std::vector<char>& wanted, double* information) {
        const std::size_t samples = base_.size();
        for (std::size_t s = 0; s < samples; ++s) {
            const std::size_t code = other < channels_ ? part_[other % 2][packed_[other / 2 * samples + s]] : 0;
            base_[s] = static_cast<std::uint16_t>(code * bins_);
        }
        parallel_for((channels_ + 1) / 2, 1, threads_, [&](std::size_t begin, std::size_t end, std::size_t worker) {
            for (std::size_t pair = begin; pair < end; ++pair) {
                const std::size_t first = 2 * pair, second = first + 1;
                const bool use[2] = {wanted[first] != 0, second < channels_ && wanted[second] != 0};
                if (!use[0] && !use[1]) continue;
                Scratch& own = scratch_[worker];
                own.sums[0] = own.sums[1] = Sums{};
                for (const ClassOrder::Run& run : order_.runs) take_class(pair, run, use, own);
                for (std::size_t which = 0; which < 2; ++which)
                    if (use[which]) information[first + which] = nats(own.sums[which]);
            }
        });
    }

private:
    static constexpr std::size_t most_square = 256;

    // One channel's table against the chosen one, (chosen code, own code), and what its classes add up to.
    struct Sums {
        std::uint64_t rows[most_square] = {};
        FixedSum joint = 0;
        std::uint64_t cells = 0;
    };

    struct Scratch {
        Sums sums[2];
        std::uint32_t cells[most_square] = {};          // zero between classes
        std::uint32_t in_turn[2][most_square * 16] = {};  // the same, for both channels at once
    };

    void take_class(std::size_t pair, const ClassOrder::Run& run, const bool (&use)[2], Scratch& own) const {
        const std::size_t square = bins_ * bins_;
        const std::uint8_t* packed = packed_.data() + pair * base_.size();
        if (run.end - run.begin < square * bins_) {
            for (std::size_t which = 0; which < 2; ++which) {
                if (!use[which]) continue;
                const std::uint8_t* part = part_[which];
                for (std::size_t s = run.begin; s < run.end; ++s) ++own.cells[base_[s] + part[packed[s]]];
                close(own.cells, run.end - run.begin, own.sums[which]);
            }
            return;
        }
        // Neighbouring samples often share a cell, and an increment must wait for the one before it: two tables.
        std::size_t s = run.begin;
        for (; s + 2 <= run.end; s += 2) {
            ++own.in_turn[0][base_[s] * bins_ + packed[s]];
            ++own.in_turn[1][base_[s + 1] * bins_ + packed[s + 1]];
        }
        for (; s < run.end; ++s) ++own.in_turn[0][base_[s] * bins_ + packed[s]];
        std::uint32_t* table = own.in_turn[0];
        for (std::size_t i = 0; i < square * bins_; ++i) {
            table[i] += own.in_turn[1][i];
            own.in_turn[1][i] = 0;
        }
        for (std::size_t which = 0; which < 2; ++which) {
            if (!use[which]) continue;
            const std::size_t step = which == 0 ? bins_ : 1, skip = which == 0 ? 1 : bins_;
            for (std::size_t code = 0; code < bins_; ++code)
                for (std::size_t mine = 0; mine < bins_; ++mine)
                    for (std::size_t sum = 0; sum < bins_; ++sum)
                        own.cells[code * bins_ + mine] += table[code * square + mine * step + sum * skip];
            close(own.cells, run.end - run.begin, own.sums[which]);
        }
        std::fill_n(table, square * bins_, 0u);
    }

    void close(std::uint32_t* cells, std::size_t class_size, Sums& sums) const {
        const std::size_t square = bins_ * bins_;
        if (class_size <= FixedTerm::in_table) {  // then the sum of terms is at most the class's own
            std::uint64_t joint = 0;
            for (std::size_t i = 0; i < square; ++i) joint += term_[cells[i]];
            sums.joint += joint;
        } else {
            for (std::size_t i = 0; i < square; ++i) sums.joint += FixedTerm::of(cells[i]);
        }
        for (std::size_t i = 0; i < square; ++i) {
            sums.cells += cells[i] != 0;
            sums.rows[i] += cells[i];
            cells[i] = 0;
        }
    }

    double nats(const Sums& sums) const {
        FixedSum rows = 0;
        double used_rows = 0;
        for (std::size_t i = 0; i < bins_ * bins_; ++i) {
            rows += FixedTerm::of(sums.rows[i]);
            used_rows += sums.rows[i] != 0;
        }
        const double samples = static_cast<double>(base_.size());
        const FixedSum difference = sums.joint + FixedTerm::of(base_.size()) - rows - class_term_;
        const double plug_in = static_cast<double>(static_cast<__int128>(difference)) / FixedTerm::units / samples;
        const double classes = static_cast<double>(order_.runs.size());
        return correct_ ? plug_in - (static_cast<double>(sums.cells) - used_rows - classes + 1) / (2 * samples) : plug_in;
    }

    std::size_t channels_, bins_;
    ClassOrder order_;
    bool correct_;
    std::size_t threads_;
    const std::uint64_t* term_ = FixedTerm::table();
    FixedSum class_term_ = 0;
    std::uint8_t part_[2][most_square] = {};  // of a packed byte: the first channel's code, the second's
    std::vector<std::uint8_t> packed_;        // (pairs, samples), samples class after class
    std::vector<std::uint16_t> base_;         // the chosen channel's code times bins, in the same order
    std::vector<Scratch> scratch_;
};

constexpr std::size_t nobody = std::numeric_limits<std::size_t>::max();

}  // namespace

Selection jmi_selection(const std::vector<const std::uint8_t*>& sources, std::size_t channels, std::size_t bins,
                        const Labels& labels, std::size_t choose, const Goal& goal, const bool* candidates,
                        bool correct, std::size_t threads) {
    std::vector<char> open(candidates, candidates + channels);
    if (choose > static_cast<std::size_t>(std::count(open.begin(), open.end(), 1)))
        throw std::invalid_argument("cannot choose more channels than there are candidates");
    if (sources.empty()) throw std::invalid_argument("there are no codes");
    std::vector<PairTables> tables;
    tables.reserve(sources.size());
    for (const std::uint8_t* codes : sources)
        tables.emplace_back(codes, channels, bins, labels, correct, threads);
    std::vector<double> information(channels, 0), latest(channels), sum(channels, 0);
    Selection result;
    std::size_t last = nobody;
    for (std::size_t step = 0; step < choose; ++step) {
        std::fill(latest.begin(), latest.end(), 0);
        for (PairTables& source : tables) {
            source.against(last, open, information.data());
            for (std::size_t c = 0; c < channels; ++c) latest[c] += information[c];
        }
        std::size_t pick = nobody;
        double best = 0;
        for (std::size_t c = 0; c < channels; ++c) {
            if (!open[c]) continue;
            const double mean = latest[c] / static_cast<double>(tables.size());
            double score = mean + goal.first[c];
            if (step != 0) {
                sum[c] += mean;
                score = goal.share * sum[c] / static_cast<double>(step) + goal.later[c];
            }
            if (pick == nobody || score > best) {
                best = score;
                pick = c;
            }
        }
        open[pick] = 0;
        result.order.push_back(static_cast<std::int64_t>(pick));
        result.score.push_back(best);
        last = pick;
    }
    return result;
}

void joint_information(const std::uint8_t* codes, std::size_t channels, std::size_t bins, const Labels& labels,
                       std::size_t other, bool correct, double* information, std::size_t threads) {
    if (other >= channels) throw std::invalid_argument("no such channel");
    PairTables tables(codes, channels, bins, labels, correct, threads);
    tables.against(other, std::vector<char>(channels, 1), information);
}

}  // namespace edgeprune
