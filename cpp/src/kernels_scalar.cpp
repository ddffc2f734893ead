// The plain loops: the definition that every instruction set must match bit for bit.
#include "dense_kernels.hpp"
#include "kernels_table.hpp"

namespace edgeprune {
namespace {

template <Dtype dtype, class T>
bool transpose_eight(const char* const rows[8], std::size_t width, T* out, std::size_t pitch) {
    return transpose_plain<dtype, T>(rows, 0, width, out, pitch);
}

template <Dtype dtype, class T>
bool convert(const char* from, std::size_t count, T* out) {
    return convert_plain<dtype, T>(from, 0, count, out);
}

template <Dtype dtype>
bool index_rows(const char* const* rows, const char* const*, std::size_t count, const IndexRule* rules,
                std::size_t groups, std::uint16_t* out, std::size_t pitch) {
    bool finite = true;
    for (std::size_t r = 0; r < count; ++r)
        for (std::size_t c = 0; c < groups * group_channels; ++c) {
            const float x = Element<dtype>::load(rows[r] + c * sizeof(typename Element<dtype>::Stored));
            finite &= is_finite(x);
            const std::size_t group = c / group_channels, lane = c % group_channels;
            out[group * pitch + r * group_channels + lane] =
                index_of(rules[group], lane, static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(x) >> 16));
        }
    return finite;
}

template <class T>
void search(const SearchTable<T>& table, const T* x, std::size_t count, std::uint8_t* code) {
    search_plain(table, x, 0, count, code);
}

template <class T>
constexpr TileKernels<T> tile_kernels{
    {transpose_eight<Dtype::float32, T>, transpose_eight<Dtype::float64, T>, transpose_eight<Dtype::float16, T>,
     transpose_eight<Dtype::bfloat16, T>},
    {convert<Dtype::float32, T>, convert<Dtype::float64, T>, convert<Dtype::float16, T>,
     convert<Dtype::bfloat16, T>},
    search<T>};

}  // namespace

const Kernels scalar_kernels{"scalar", tile_kernels<float>, tile_kernels<std::int16_t>,
                             {index_rows<Dtype::float32>, index_rows<Dtype::float64>, index_rows<Dtype::float16>,
                              index_rows<Dtype::bfloat16>},
                             close_short_run<AnyByWords>, product_tile<ScalarDouble>, add_scaled<ScalarDouble>};

}  // namespace edgeprune
