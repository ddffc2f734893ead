// Edges, codes and counts against plain loops, on every instruction set, type and stride.
#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <vector>

#include "check.hpp"
#include "edgeprune/counts.hpp"
#include "edgeprune/edges.hpp"
#include "edgeprune/estimators.hpp"

#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

using namespace edgeprune;

namespace {

std::vector<float> activations(std::size_t samples, std::size_t channels) {
    Random random;
    std::vector<float> x(samples * channels);
    for (std::size_t i = 0; i < x.size(); ++i) {
        double value = random.normal() * std::exp(static_cast<double>(i % channels % 7) - 3);
        if (i % channels % 3 == 0) value = std::max(value, 0.0);
        if (i % channels % 5 == 1) value = value * 1e-3 + 50;
        if (i % 97 == 0) value = -0.0;
        x[i] = static_cast<float>(value);
    }
    return x;
}

std::size_t code_by_count(const float* thresholds, std::size_t count, float x) {
    return static_cast<std::size_t>(std::count_if(thresholds, thresholds + count, [x](float t) { return t <= x; }));
}

// Storage of one element type, filled from float32 values that the type holds exactly.
struct Stored {
    Dtype dtype;
    std::size_t item;
};

void store(char* at, Dtype dtype, float value) {
    if (dtype == Dtype::float32) std::memcpy(at, &value, 4);
    const double wide = value;
    if (dtype == Dtype::float64) std::memcpy(at, &wide, 8);
    const std::uint16_t upper = static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(value) >> 16);
    if (dtype == Dtype::bfloat16) std::memcpy(at, &upper, 2);
    if (dtype != Dtype::float16) return;
    const std::uint32_t bits = std::bit_cast<std::uint32_t>(value), sign = bits >> 16 & 0x8000u;
    const float magnitude = std::abs(value);
    const std::uint16_t half = static_cast<std::uint16_t>(
        sign | (magnitude < 0x1p-14f ? static_cast<std::uint32_t>(magnitude * 0x1p24f)
                                     : ((bits & 0x7fffffffu) >> 13) - (112u << 10)));
    std::memcpy(at, &half, 2);
}

// The value of this type below `value` in magnitude; subnormal halves, too.
float rounded_to(Dtype dtype, float value) {
    const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
    if (dtype == Dtype::bfloat16) return std::bit_cast<float>(bits & 0xffff0000u);
    if (dtype != Dtype::float16) return value;
    if (std::abs(value) < 0x1p-14f) return std::trunc(value * 0x1p24f) * 0x1p-24f;
    return std::bit_cast<float>(bits & 0xffffe000u);
}

void codes_equal_counting_thresholds() {
    const std::size_t samples = 531, channels = 77;
    for (const Stored& stored : {Stored{Dtype::float32, 4}, Stored{Dtype::float64, 8}, Stored{Dtype::float16, 2},
                                 Stored{Dtype::bfloat16, 2}}) {
        std::vector<float> x = activations(samples, channels);
        for (std::size_t i = 0; i < x.size(); i += 11) x[i] *= 0x1p-15f;  // subnormal halves among them
        for (float& value : x) value = rounded_to(stored.dtype, value);
        for (const bool by_channel : {false, true}) {
            for (const std::size_t gap : {std::size_t{1}, std::size_t{2}}) {
                const std::size_t item = stored.item * gap;
                std::vector<char> bytes(samples * channels * item + 1);
                View view{bytes.data() + 1, stored.dtype, samples, channels,
                          static_cast<std::ptrdiff_t>(by_channel ? item : item * channels),
                          static_cast<std::ptrdiff_t>(by_channel ? item * samples : item)};
                for (std::size_t s = 0; s < samples; ++s)
                    for (std::size_t c = 0; c < channels; ++c)
                        store(bytes.data() + 1 + static_cast<std::ptrdiff_t>(s) * view.sample_stride +
                                  static_cast<std::ptrdiff_t>(c) * view.channel_stride,
                              stored.dtype, x[s * channels + c]);
                std::vector<std::uint32_t> rows(samples);
                for (std::size_t s = 0; s < samples; ++s) rows[s] = static_cast<std::uint32_t>(samples - 1 - s);
                std::vector<std::int32_t> label(samples);
                for (std::size_t s = 0; s < samples; ++s) label[s] = static_cast<std::int32_t>(s * 7 % 5);
                for (const std::size_t bins : {std::size_t{2}, std::size_t{16}, std::size_t{33}, std::size_t{64},
                                               std::size_t{130}, std::size_t{255}}) {
                    std::vector<float> edges(channels * bins);
                    CHECK(find_edges(view, rows.data(), samples, bins, edges.data(), 2));
                    std::vector<std::uint8_t> codes(samples * channels);
                    CHECK(encode(view, edges.data(), bins, codes.data(), 2));
                    std::vector<std::uint32_t> expected(channels * 5 * (bins + 1)), counts(expected.size());
                    bool same = true;
                    for (std::size_t c = 0; c < channels; ++c)
                        for (std::size_t s = 0; s < samples; ++s) {
                            const std::size_t code = code_by_count(edges.data() + c * bins, bins, x[s * channels + c]);
                            same &= codes[c * samples + s] == code;
                            ++expected[(c * 5 + static_cast<std::size_t>(label[s])) * (bins + 1) + code];
                        }
                    CHECK(same);
                    const Labels labels{label.data(), samples, 5};
                    CHECK(add_counts(view, edges.data(), bins, labels, counts.data(), 3));
                    CHECK(counts == expected);
                    std::vector<TableStatistics> direct(channels), by_table(channels);
                    CHECK(label_statistics(view, edges.data(), bins, labels, direct.data(), nullptr, 3));
                    table_statistics(counts.data(), channels, 5, bins + 1, by_table.data(), 2);
                    CHECK(std::memcmp(direct.data(), by_table.data(), channels * sizeof(TableStatistics)) == 0);
                    add_counts(codes.data(), 1, static_cast<std::ptrdiff_t>(samples), samples, channels, bins + 1,
                               labels, counts.data(), 2);
                    for (std::uint32_t& n : expected) n *= 2;
                    CHECK(counts == expected);
                }
            }
        }
    }
}

// Classes of up to 127 samples are summed another way than longer ones, several together, and emptied
// every 8,192 samples: the bits must not tell. Channel 1 is constant, so one cell holds the whole class.
void classes_of_every_length_give_the_bits_of_the_table() {
    const std::size_t channels = 21;
    std::vector<std::int32_t> label;
    std::int32_t classes = 0;
    for (std::size_t length = 0; length < 200; ++length, ++classes) label.insert(label.end(), length, classes);
    label.insert(label.end(), 5000, classes++);
    for (std::size_t i = label.size() - 1; i > 0; --i) std::swap(label[i], label[i * 2654435761u % (i + 1)]);
    const std::size_t samples = label.size();
    std::vector<float> x = activations(samples, channels);
    for (std::size_t s = 0; s < samples; ++s) x[s * channels + 1] = 2.5f;
    const View view{x.data(), Dtype::float32, samples, channels, channels * 4, 4};
    const Labels labels{label.data(), samples, static_cast<std::size_t>(classes)};
    std::vector<std::uint32_t> rows(2048);
    for (std::uint32_t i = 0; i < 2048; ++i) rows[i] = i;
    for (const std::size_t bins : {std::size_t{7}, std::size_t{64}, std::size_t{255}}) {
        std::vector<float> edges(channels * bins);
        CHECK(find_edges(view, rows.data(), rows.size(), bins, edges.data(), 1));
        std::vector<std::uint32_t> counts(channels * labels.classes * (bins + 1));
        CHECK(add_counts(view, edges.data(), bins, labels, counts.data(), 1));
        std::vector<TableStatistics> direct(channels), by_table(channels);
        CHECK(label_statistics(view, edges.data(), bins, labels, direct.data(), nullptr, 1));
        table_statistics(counts.data(), channels, labels.classes, bins + 1, by_table.data(), 1);
        CHECK(std::memcmp(direct.data(), by_table.data(), channels * sizeof(TableStatistics)) == 0);
        CHECK(direct[1].information == 0 && direct[1].bins == 1);
    }
}

void soft_counts_equal_plain_loops() {
    const std::size_t samples = 401, channels = 37, bins = 9, classes = 5;
    Random random;
    std::vector<std::uint8_t> codes(samples * channels);
    std::vector<std::uint32_t> weights(samples * classes), expected(channels * classes * bins);
    for (std::uint8_t& code : codes) code = static_cast<std::uint8_t>(random.next() % bins);
    for (std::uint32_t& weight : weights) weight = static_cast<std::uint32_t>(random.next() % 256);
    for (std::size_t s = 0; s < samples; ++s)
        for (std::size_t c = 0; c < channels; ++c)
            for (std::size_t k = 0; k < classes; ++k)
                expected[(c * classes + k) * bins + codes[s * channels + c]] += weights[s * classes + k];
    for (const std::size_t threads : {std::size_t{1}, std::size_t{3}}) {
        std::vector<std::uint32_t> counts(expected.size());
        const auto add = [&] {
            add_soft_counts(codes.data(), static_cast<std::ptrdiff_t>(channels), 1, samples, channels, bins,
                            weights.data(), classes, counts.data(), threads);
        };
        add();
        CHECK(counts == expected);
        const std::uint8_t was = codes[7];
        codes[7] = bins;
        CHECK(throws<std::invalid_argument>(add));
        codes[7] = was;
    }
}

// As -ffast-math start-up code and torch.set_flush_denormal leave a thread.
struct Flushing {
#if defined(__SSE2__)
    static constexpr unsigned flush = 0x8040;
    unsigned before = _mm_getcsr();
    Flushing() { _mm_setcsr(before | flush); }
    ~Flushing() { _mm_setcsr(before); }
    static bool holds() { return (_mm_getcsr() & flush) == flush; }
#elif defined(__aarch64__)
    static constexpr std::uint64_t flush = 1 << 24;
    static std::uint64_t get() {
        std::uint64_t mode;
        asm volatile("mrs %0, fpcr" : "=r"(mode));
        return mode;
    }
    static void set(std::uint64_t mode) { asm volatile("msr fpcr, %0" : : "r"(mode)); }
    std::uint64_t before = get();
    Flushing() { set(before | flush); }
    ~Flushing() { set(before); }
    static bool holds() { return (get() & flush) == flush; }
#else
    static bool holds() { return true; }
#endif
};

void flushing_subnormal_numbers_changes_no_code() {
    const std::size_t samples = 600, channels = 40, bins = 12;
    std::vector<float> x = activations(samples, channels);
    for (std::size_t i = 0; i < x.size(); i += 5) x[i] = i % 2 ? 1e-40f : -1e-40f;
    const View view{x.data(), Dtype::float32, samples, channels, static_cast<std::ptrdiff_t>(channels * 4), 4};
    std::vector<float> edges(channels * bins);
    std::vector<std::uint32_t> rows(samples);
    for (std::uint32_t i = 0; i < samples; ++i) rows[i] = i;
    CHECK(find_edges(view, rows.data(), samples, bins, edges.data(), 1));
    for (std::size_t c = 1; c < channels; c += 2) {  // thresholds off the grid are compared as floats
        float* own = edges.data() + c * bins;
        *std::upper_bound(own, own + bins - 1, 1.0f) = 1.0001f;
        std::sort(own, own + bins);
    }
    std::vector<std::uint8_t> expected(samples * channels), codes(expected.size());
    CHECK(encode(view, edges.data(), bins, expected.data(), 1));
    for (const std::size_t threads : {std::size_t{1}, std::size_t{3}}) {
        const Flushing flushing;
        std::vector<float> again(edges.size());
        CHECK(find_edges(view, rows.data(), samples, bins, again.data(), threads));
        CHECK(encode(view, edges.data(), bins, codes.data(), threads));
        CHECK(Flushing::holds());
        CHECK(codes == expected);
    }
}

void every_depth_and_edge_is_exact() {
    Random random;
    for (std::size_t count = 0; count <= max_thresholds; count += count < 20 ? 1 : 7) {
        std::vector<float> thresholds(std::max<std::size_t>(count, 1));
        for (float& t : thresholds) {
            t = static_cast<float>(random.normal() * std::exp(8 * random.normal()));
            std::uint32_t bits = std::bit_cast<std::uint32_t>(t);
            if (count % 2) bits = bits >> 31 ? bits | 0xffffu : bits & 0xffff0000u;  // on the grid of keys
            t = std::bit_cast<float>(bits);
        }
        std::sort(thresholds.begin(), thresholds.end());
        std::vector<float> x;
        for (const float t : thresholds)
            for (const float value : {t, std::nextafter(t, -1e38f), std::nextafter(t, 1e38f), -t, 0.0f, -0.0f})
                x.push_back(value);
        std::vector<std::uint8_t> codes(x.size());
        const View view{x.data(), Dtype::float32, x.size(), 1, 4, 4};
        CHECK(encode(view, thresholds.data(), count, codes.data(), 1));
        bool same = true;
        for (std::size_t i = 0; i < x.size(); ++i) same &= codes[i] == code_by_count(thresholds.data(), count, x[i]);
        CHECK(same);
    }
}

void values_that_are_not_finite_are_found_and_leave_no_trace() {
    for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                            -std::numeric_limits<float>::infinity()})
        for (const std::size_t at : {std::size_t{0}, std::size_t{7 * 40 + 3}, std::size_t{299 * 40 + 39}}) {
            std::vector<float> x = activations(300, 40);
            std::vector<float> edges(40 * 16);
            std::vector<std::uint32_t> rows(300);
            for (std::uint32_t i = 0; i < 300; ++i) rows[i] = i;
            const View view{x.data(), Dtype::float32, 300, 40, 160, 4};
            CHECK(find_edges(view, rows.data(), 300, 16, edges.data(), 1));
            x[at] = bad;
            std::vector<std::int32_t> label(300, 0);
            std::vector<std::uint32_t> counts(40 * 17, 5);
            CHECK(!add_counts(view, edges.data(), 16, {label.data(), 300, 1}, counts.data(), 2));
            CHECK(counts == std::vector<std::uint32_t>(40 * 17, 5));
            CHECK(!find_edges(view, rows.data(), 300, 16, edges.data(), 1));
            const Position position = find_non_finite(view);
            CHECK(position.found && position.sample == at / 40 && position.channel == at % 40);
        }
}

void bad_sizes_throw() {
    const float x = 1;
    std::uint32_t row = 0, counts[8] = {};
    std::int32_t label = 0;
    std::vector<float> edges(300);
    const View view{&x, Dtype::float32, 1, 1, 4, 4};
    CHECK(throws<std::invalid_argument>([&] { find_edges(view, &row, 1, 1, edges.data(), 1); }));
    CHECK(throws<std::invalid_argument>([&] { find_edges(view, &row, 1, 256, edges.data(), 1); }));
    CHECK(throws<std::invalid_argument>([&] { add_counts(view, edges.data(), 256, {&label, 1, 1}, counts, 1); }));
    CHECK(throws<std::invalid_argument>([&] { add_counts(view, edges.data(), 4, {&label, 1, 0}, counts, 1); }));
    const std::uint8_t code = 9;
    CHECK(throws<std::invalid_argument>([&] { add_counts(&code, 1, 1, 1, 1, 4, {&label, 1, 1}, counts, 1); }));
    label = 3;
    CHECK(check_labels({&label, 1, 3}) == 0);
    CHECK(throws<std::invalid_argument>([] { simd_select("mmx"); }));
}

}  // namespace

int main() {
    on_every_set(codes_equal_counting_thresholds);
    on_every_set(flushing_subnormal_numbers_changes_no_code);
    soft_counts_equal_plain_loops();
    on_every_set(classes_of_every_length_give_the_bits_of_the_table);
    on_every_set(every_depth_and_edge_is_exact);
    on_every_set(values_that_are_not_finite_are_found_and_leave_no_trace);
    bad_sizes_throw();
    return finish();
}
