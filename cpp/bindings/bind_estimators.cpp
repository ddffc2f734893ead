// Information from joint counts.
#include "bindings.hpp"
#include "edgeprune/estimators.hpp"

using namespace edgeprune;

namespace {

struct Shape {
    std::size_t channels, classes, bins;
};

Shape shape_of(const Array<std::uint32_t>& counts) {
    if (counts.ndim() != 3) throw std::invalid_argument("counts must have three dimensions");
    return {static_cast<std::size_t>(counts.shape(0)), static_cast<std::size_t>(counts.shape(1)),
            static_cast<std::size_t>(counts.shape(2))};
}

}  // namespace

void bind_estimators(py::module_& module) {
    // One row per channel: samples, information, entropy, class entropy, bins, classes, cells, smallest expected.
    module.def(
        "table_statistics",
        [](const Array<std::uint32_t>& counts, std::size_t threads) {
            const Shape shape = shape_of(counts);
            static_assert(sizeof(TableStatistics) == 8 * sizeof(double));
            Array<double> out({shape.channels, std::size_t{8}});
            auto* rows = reinterpret_cast<TableStatistics*>(out.mutable_data());
            const std::uint32_t* in = counts.data();
            {
                py::gil_scoped_release release;  // reads `counts`, which the caller holds; writes `out` alone
                table_statistics(in, shape.channels, shape.classes, shape.bins, rows, threads);
            }
            return out;
        },
        py::arg("counts").noconvert(), py::arg("threads"));

    module.def(
        "shuffled_information",
        [](const Array<std::uint32_t>& counts, std::size_t threads) {
            const Shape shape = shape_of(counts);
            Array<double> out(static_cast<py::ssize_t>(shape.channels));
            double* values = out.mutable_data();
            const std::uint32_t* in = counts.data();
            {
                py::gil_scoped_release release;  // as above
                shuffled_information(in, shape.channels, shape.classes, shape.bins, values, threads);
            }
            return out;
        },
        py::arg("counts").noconvert(), py::arg("threads"));

    module.def(
        "permutation_p_values",
        [](const Array<std::uint32_t>& counts, std::size_t rounds, std::uint64_t seed, std::size_t threads) {
            const Shape shape = shape_of(counts);
            Array<double> out(static_cast<py::ssize_t>(shape.channels));
            double* values = out.mutable_data();
            const std::uint32_t* in = counts.data();
            {
                py::gil_scoped_release release;  // as above
                permutation_p_values(in, shape.channels, shape.classes, shape.bins, rounds, seed, values, threads);
            }
            return out;
        },
        py::arg("counts").noconvert(), py::arg("rounds"), py::arg("seed"), py::arg("threads"));
}
