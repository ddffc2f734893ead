#include "edgeprune/jmi.hpp"

#include <algorithm>
#include <limits>
#include <stdexcept>

#include "edgeprune/estimators.hpp"
#include "edgeprune/parallel.hpp"

namespace edgeprune {
namespace {

// Two neighbouring channels share one byte per sample, so one increment counts both against the
// chosen channel and the label; each one's table is a margin of theirs.
class PairTables {
public:
    PairTables(const std::uint8_t* codes, std::size_t channels, std::size_t bins, const Labels& labels, bool correct,
               std::size_t threads)
        : codes_(codes), channels_(channels), bins_(bins), labels_(labels), correct_(correct), threads_(threads),
          f_(labels.count) {
        if (bins == 0 || bins > 16) throw std::invalid_argument("bins must be 1..16 for pair tables");
        if (labels.classes * bins * bins * bins > max_samples) throw std::invalid_argument("too many classes");
        const std::size_t samples = labels.count;
        for (std::size_t i = 0; i < channels * samples; ++i)
            if (codes[i] >= bins) throw std::invalid_argument("a code is not below bins");
        packed_.resize((channels + 1) / 2 * samples);
        for (std::size_t pair = 0; pair < (channels + 1) / 2; ++pair) {
            const std::uint8_t* a = codes + 2 * pair * samples;
            const std::uint8_t* b = 2 * pair + 1 < channels ? a + samples : a;
            std::uint8_t* out = packed_.data() + pair * samples;
            for (std::size_t s = 0; s < samples; ++s) out[s] = static_cast<std::uint8_t>(a[s] * bins + b[s]);
        }
        std::vector<std::uint64_t> per_class(labels.classes, 0);
        for (std::size_t s = 0; s < samples; ++s) ++per_class[static_cast<std::size_t>(labels.data[s])];
        for (const std::uint64_t n : per_class) {
            class_term_ += f_(n);
            used_classes_ += n != 0;
        }
        base_.resize(samples);
        scratch_.resize(threads);
    }

    // Information of every wanted channel together with channel `other`, or alone where it is npos.
    void against(std::size_t other, const std::vector<char>& wanted, double* information) {
        const std::size_t samples = labels_.count;
        const std::uint32_t square = static_cast<std::uint32_t>(bins_ * bins_);
        for (std::size_t s = 0; s < samples; ++s) {
            const std::size_t code = other < channels_ ? codes_[other * samples + s] : 0;
            base_[s] = static_cast<std::uint32_t>(static_cast<std::size_t>(labels_.data[s]) * bins_ + code) * square;
        }
        const std::size_t pairs = (channels_ + 1) / 2;
        parallel_for(pairs, 1, threads_, [&](std::size_t begin, std::size_t end, std::size_t worker) {
            std::vector<std::uint32_t>& table = scratch_[worker];
            for (std::size_t pair = begin; pair < end; ++pair) {
                const std::size_t first = 2 * pair, second = first + 1;
                const bool has_second = second < channels_;
                if (!wanted[first] && !(has_second && wanted[second])) continue;
                table.assign(labels_.classes * bins_ * square, 0);
                const std::uint8_t* own = packed_.data() + pair * samples;
                for (std::size_t s = 0; s < samples; ++s) ++table[base_[s] + own[s]];
                if (wanted[first]) information[first] = margin(table, bins_, 1);
                if (has_second && wanted[second]) information[second] = margin(table, 1, bins_);
            }
        });
    }

private:
    // One channel's code moves by `step` in the table, the other's, summed over, by `skip`.
    double margin(const std::vector<std::uint32_t>& table, std::size_t step, std::size_t skip) const {
        double joint = 0, rows = 0, cells = 0, used_rows = 0;
        for (std::size_t code = 0; code < bins_; ++code)       // of the chosen channel
            for (std::size_t own = 0; own < bins_; ++own) {
                std::uint64_t row = 0;
                for (std::size_t k = 0; k < labels_.classes; ++k) {
                    const std::uint32_t* at = table.data() + (k * bins_ + code) * bins_ * bins_ + own * step;
                    std::uint32_t n = 0;
                    for (std::size_t sum = 0; sum < bins_; ++sum) n += at[sum * skip];
                    joint += f_(n);
                    cells += n != 0;
                    row += n;
                }
                rows += f_(row);
                used_rows += row != 0;
            }
        const double samples = static_cast<double>(labels_.count);
        const double plug_in = (joint - rows - class_term_ + f_(labels_.count)) / samples;
        return correct_ ? plug_in - (cells - used_rows - used_classes_ + 1) / (2 * samples) : plug_in;
    }

    const std::uint8_t* codes_;
    std::size_t channels_, bins_;
    Labels labels_;
    bool correct_;
    std::size_t threads_;
    EntropyTerm f_;
    double class_term_ = 0, used_classes_ = 0;
    std::vector<std::uint8_t> packed_;  // (pairs, samples)
    std::vector<std::uint32_t> base_;
    std::vector<std::vector<std::uint32_t>> scratch_;
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
        tables.emplace_back(codes, channels, bins, labels, correct, resolve_threads(threads));
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
    PairTables tables(codes, channels, bins, labels, correct, resolve_threads(threads));
    tables.against(other, std::vector<char>(channels, 1), information);
}

}  // namespace edgeprune
