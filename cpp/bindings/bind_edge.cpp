// Information per connection.
#include "bindings.hpp"
#include "edgeprune/edge.hpp"

using namespace edgeprune;

void bind_edge(py::module_& module) {
    module.attr("edge_steps") = edge_steps;

    module.def(
        "find_ranges",
        [](const py::array& x, const std::string& dtype, std::size_t threads) -> py::object {
            const View view = view_of(x, dtype);
            Array<float> ranges(static_cast<py::ssize_t>(view.channels));
            float* out = ranges.mutable_data();
            bool finite;
            {
                py::gil_scoped_release release;  // reads `x`, which the caller holds; writes `ranges` alone
                finite = find_ranges(view, out, threads);
            }
            if (!finite) return py::none();
            return ranges;
        },
        py::arg("x"), py::arg("dtype"), py::arg("threads"));

    module.def(
        "add_fine_counts",
        [](const py::array& x, const std::string& dtype, const Array<float>& ranges,
           const Array<std::int32_t>& labels, std::size_t classes, Array<std::uint32_t>& counts,
           std::size_t threads) {
            const View view = view_of(x, dtype);
            require_shape(ranges, {view.channels}, "ranges");
            if (counts.ndim() != 3) throw std::invalid_argument("counts must have three dimensions");
            const std::size_t cells = static_cast<std::size_t>(counts.shape(2));
            require_shape(counts, {view.channels, classes, cells}, "counts");
            const Labels checked = labels_of(labels, classes, view.samples);
            std::uint32_t* out = counts.mutable_data();
            const float* range = ranges.data();
            py::gil_scoped_release release;  // `counts` is written by this call alone; the face locks it
            return add_fine_counts(view, range, cells, checked, out, threads);
        },
        py::arg("x"), py::arg("dtype"), py::arg("ranges").noconvert(), py::arg("labels").noconvert(),
        py::arg("classes"), py::arg("counts").noconvert(), py::arg("threads"));

    module.def(
        "edge_tables",
        [](const Array<std::uint32_t>& counts, std::size_t threads) {
            if (counts.ndim() != 3) throw std::invalid_argument("counts must have three dimensions");
            const std::size_t channels = static_cast<std::size_t>(counts.shape(0));
            const std::size_t classes = static_cast<std::size_t>(counts.shape(1));
            const std::size_t cells = static_cast<std::size_t>(counts.shape(2));
            Array<double> information({channels, edge_steps}), entropy({channels, edge_steps});
            double* i_out = information.mutable_data();
            double* h_out = entropy.mutable_data();
            const std::uint32_t* in = counts.data();
            {
                py::gil_scoped_release release;  // as above
                edge_tables(in, channels, classes, cells, i_out, h_out, threads);
            }
            return py::make_tuple(information, entropy);
        },
        py::arg("counts").noconvert(), py::arg("threads"));

    module.def(
        "edge_scores",
        [](const Array<float>& ranges, const Array<double>& information, const Array<double>& entropy,
           const Array<float>& weights, const Array<float>& steps, double theta, std::size_t threads) {
            const std::size_t channels = static_cast<std::size_t>(ranges.size());
            const std::size_t outputs = static_cast<std::size_t>(steps.size());
            require_shape(information, {channels, edge_steps}, "information");
            require_shape(entropy, {channels, edge_steps}, "entropy");
            require_shape(weights, {outputs, channels}, "weights");
            Array<double> scores({outputs, channels});
            double* out = scores.mutable_data();
            const float *range = ranges.data(), *weight = weights.data(), *step = steps.data();
            const double *i_in = information.data(), *h_in = entropy.data();
            {
                py::gil_scoped_release release;  // as above
                edge_scores(range, i_in, h_in, channels, weight, step, outputs, theta, out, threads);
            }
            return scores;
        },
        py::arg("ranges").noconvert(), py::arg("information").noconvert(), py::arg("entropy").noconvert(),
        py::arg("weights").noconvert(), py::arg("steps").noconvert(), py::arg("theta"), py::arg("threads"));
}
