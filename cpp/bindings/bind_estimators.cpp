// Information from joint counts.
#include "bindings.hpp"
#include "edgeprune/estimators.hpp"
#include "edgeprune/shuffle.hpp"

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
    module.attr("most_permuted") = most_permuted;

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

    // The same rows straight from activations on frozen edges, and the mean of shuffled labels where it is asked
    // for, else nothing; or None where a value was not finite.
    module.def(
        "label_statistics",
        [](const py::array& x, const std::string& dtype, const Array<float>& thresholds,
           const Array<std::int32_t>& labels, std::size_t classes, bool shuffle, std::size_t threads) -> py::object {
            const View view = view_of(x, dtype);
            if (thresholds.ndim() != 2) throw std::invalid_argument("thresholds must have two dimensions");
            const std::size_t count = static_cast<std::size_t>(thresholds.shape(1));
            require_shape(thresholds, {view.channels, count}, "thresholds");
            const Labels checked = labels_of(labels, classes, view.samples);
            Array<double> out({view.channels, std::size_t{8}});
            Array<double> shuffled(static_cast<py::ssize_t>(shuffle ? view.channels : 0));
            auto* rows = reinterpret_cast<TableStatistics*>(out.mutable_data());
            double* mean = shuffle ? shuffled.mutable_data() : nullptr;
            const float* edges = thresholds.data();
            bool finite;
            {
                py::gil_scoped_release release;  // reads buffers of live arguments; writes its own arrays alone
                finite = label_statistics(view, edges, count, checked, rows, mean, threads);
            }
            if (!finite) return py::none();
            return py::make_tuple(out, shuffled);
        },
        py::arg("x"), py::arg("dtype"), py::arg("thresholds").noconvert(), py::arg("labels").noconvert(),
        py::arg("classes"), py::arg("shuffle"), py::arg("threads"));

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
