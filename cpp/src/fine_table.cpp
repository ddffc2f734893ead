#include "fine_table.hpp"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "run_kernels.hpp"

namespace edgeprune {
namespace {

using Unsigned = std::uint16_t __attribute__((vector_size(16)));  // what every processor here has
using Signed = std::int16_t __attribute__((vector_size(16)));

}  // namespace

template <class Count>
void FineTable::sum_up(const std::uint32_t* counts, std::size_t cells, std::vector<Count>& below) {
    below.resize((cells + 1) * pitch_);
    std::fill_n(below.begin(), pitch_, Count{0});
    constexpr std::size_t block = 16;  // cells: a cache line of each class, and as many rows to write
    for (std::size_t first = 0; first < cells; first += block) {
        const std::size_t end = std::min(cells, first + block);
        for (std::size_t cell = first; cell < end; ++cell)
            std::fill_n(below.begin() + static_cast<std::ptrdiff_t>((cell + 1) * pitch_), pitch_, Count{0});
        for (std::size_t k = 0; k < classes_; ++k) {
            Count sum = below[first * pitch_ + k];
            for (std::size_t cell = first; cell < end; ++cell) {
                const std::uint32_t n = counts[k * cells + cell];
                totals_[cell + 1] += n;
                sum = static_cast<Count>(sum + n);
                below[(cell + 1) * pitch_ + k] = sum;
            }
        }
    }
}

void FineTable::take(const std::uint32_t* counts, std::size_t classes, std::size_t cells) {
    classes_ = classes;
    pitch_ = (classes + together - 1) / together * together;
    totals_.assign(cells + 1, 0);
    used_classes_ = 0;
    class_term_ = 0;
    std::uint64_t largest = 0;
    for (std::size_t k = 0; k < classes; ++k) {
        const std::uint64_t n = std::accumulate(counts + k * cells, counts + (k + 1) * cells, std::uint64_t{0});
        used_classes_ += n != 0;
        class_term_ += FixedTerm::of(n);
        largest = std::max(largest, n);
    }
    narrow_ = classes > few_classes && largest <= longest;
    with_large_.resize(narrow_ ? std::min(pitch_, most_together) / together : 0);
    if (narrow_) sum_up(counts, cells, narrow_below_);
    else sum_up(counts, cells, below_);
    std::partial_sum(totals_.begin(), totals_.end(), totals_.begin());
}

// Vectors with a larger cell are rare, and looked up afterwards.
FineTable::Row FineTable::compare(const std::uint16_t* low, const std::uint16_t* high) {
    const std::uint64_t* term = FixedTerm::table();
    Row out;
    for (std::size_t from = 0; from < pitch_; from += most_together) {
        const std::size_t end = std::min(pitch_, from + most_together);
        Unsigned above[small_cell] = {};
        std::size_t large = 0;
        for (std::size_t k = from; k < end; k += together) {
            Unsigned less, more;
            std::memcpy(&less, low + k, sizeof less);
            std::memcpy(&more, high + k, sizeof more);
            const Signed n = reinterpret_cast<Signed>(more - less);
            for_each_constant<small_cell>(
                [&](auto m) { above[m] -= reinterpret_cast<Unsigned>(n > static_cast<std::int16_t>(m)); });
            const Signed beyond = n > static_cast<std::int16_t>(small_cell);
            std::uint64_t words[2];
            std::memcpy(words, &beyond, sizeof words);
            with_large_[large] = k;
            large += (words[0] | words[1]) != 0;
        }
        for (std::size_t m = 0; m < small_cell; ++m) {
            std::uint64_t count = 0;
            for (std::size_t lane = 0; lane < together; ++lane) count += above[m][lane];
            if (m == 0) out.cells += count;
            out.joint += FixedSum{count} * (term[m + 1] - term[m]);
        }
        for (std::size_t i = 0; i < large; ++i)
            for (std::size_t k = with_large_[i]; k < with_large_[i] + together; ++k) {
                const std::size_t n = static_cast<std::uint16_t>(high[k] - low[k]);
                out.joint += term[std::max(n, small_cell)] - term[small_cell];
            }
    }
    return out;
}

template <class Count>
FineTable::Row FineTable::look_up(const Count* low, const Count* high) const {
    const std::uint64_t* term = FixedTerm::table();
    Row out;
    for (std::size_t k = 0; k < classes_; ++k) {
        const Count n = static_cast<Count>(high[k] - low[k]);
        out.joint += n <= FixedTerm::in_table ? FixedSum{term[n]} : FixedTerm::of(n);
        out.cells += n != 0;
    }
    return out;
}

FineTable::Row FineTable::row(std::size_t begin, std::size_t end) {
    const std::uint64_t samples = totals_[end] - totals_[begin];
    const std::size_t low = begin * pitch_, high = end * pitch_;
    Row out;
    if (!narrow_) out = look_up(below_.data() + low, below_.data() + high);
    else if (samples > 2 * classes_) out = look_up(narrow_below_.data() + low, narrow_below_.data() + high);
    else out = compare(narrow_below_.data() + low, narrow_below_.data() + high);
    out.samples = samples;
    return out;
}

}  // namespace edgeprune
