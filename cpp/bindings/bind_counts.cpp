// Edges, codes and joint counts.
#include "bindings.hpp"
#include "edgeprune/dispatch.hpp"
#include "edgeprune/edges.hpp"
#include "edgeprune/parallel.hpp"

using namespace edgeprune;

void bind_counts(py::module_& module) {
    module.def("simd_name", &simd_name);
    module.def("simd_available", &simd_available);
    module.def("simd_select", &simd_select);
    module.def("available_threads", [] { return resolve_threads(0); });

    module.def("find_non_finite", [](const py::array& x, const std::string& dtype) -> py::object {
        const View view = view_of(x, dtype);
        Position at;
        {
            py::gil_scoped_release release;  // reads the caller's buffer, which `x` keeps alive
            at = find_non_finite(view);
        }
        if (!at.found) return py::none();
        return py::make_tuple(at.sample, at.channel, at.value);
    });

    module.def(
        "find_edges",
        [](const py::array& x, const std::string& dtype, const Array<std::uint32_t>& rows, std::size_t bins,
           std::size_t threads) -> py::object {
            const View view = view_of(x, dtype);
            for (py::ssize_t i = 0; i < rows.size(); ++i)
                if (rows.data()[i] >= view.samples) throw std::invalid_argument("a row is out of range");
            Array<float> thresholds({view.channels, bins});
            float* out = thresholds.mutable_data();
            const std::uint32_t* picked = rows.data();
            const std::size_t count = static_cast<std::size_t>(rows.size());
            bool finite;
            {
                py::gil_scoped_release release;  // the buffers belong to live arguments and to `thresholds`
                finite = find_edges(view, picked, count, bins, out, threads);
            }
            if (!finite) return py::none();
            return thresholds;
        },
        py::arg("x"), py::arg("dtype"), py::arg("rows").noconvert(), py::arg("bins"), py::arg("threads"));

    module.def(
        "encode",
        [](const py::array& x, const std::string& dtype, const Array<float>& thresholds,
           std::size_t threads) -> py::object {
            const View view = view_of(x, dtype);
            if (thresholds.ndim() != 2) throw std::invalid_argument("thresholds must have two dimensions");
            const std::size_t count = static_cast<std::size_t>(thresholds.shape(1));
            require_shape(thresholds, {view.channels, count}, "thresholds");
            Array<std::uint8_t> codes({view.channels, view.samples});
            std::uint8_t* out = codes.mutable_data();
            const float* edges = thresholds.data();
            bool finite;
            {
                py::gil_scoped_release release;  // as above
                finite = encode(view, edges, count, out, threads);
            }
            if (!finite) return py::none();
            return codes;
        },
        py::arg("x"), py::arg("dtype"), py::arg("thresholds").noconvert(), py::arg("threads"));

    module.def(
        "add_counts",
        [](const py::array& x, const std::string& dtype, const Array<float>& thresholds,
           const Array<std::int32_t>& labels, std::size_t classes, Array<std::uint32_t>& counts,
           std::size_t threads) {
            const View view = view_of(x, dtype);
            if (thresholds.ndim() != 2) throw std::invalid_argument("thresholds must have two dimensions");
            const std::size_t count = static_cast<std::size_t>(thresholds.shape(1));
            require_shape(thresholds, {view.channels, count}, "thresholds");
            require_shape(counts, {view.channels, classes, count + 1}, "counts");
            const Labels checked = labels_of(labels, classes, view.samples);
            std::uint32_t* out = counts.mutable_data();
            const float* edges = thresholds.data();
            py::gil_scoped_release release;  // `counts` is written by this call alone; the face locks it
            return add_counts(view, edges, count, checked, out, threads);
        },
        py::arg("x"), py::arg("dtype"), py::arg("thresholds").noconvert(), py::arg("labels").noconvert(),
        py::arg("classes"), py::arg("counts").noconvert(), py::arg("threads"));

    module.def(
        "add_code_counts",
        [](const py::array_t<std::uint8_t>& codes, std::size_t bins, const Array<std::int32_t>& labels,
           std::size_t classes, Array<std::uint32_t>& counts, std::size_t threads) {
            if (codes.ndim() != 2) throw std::invalid_argument("codes must have two dimensions");
            const std::size_t samples = static_cast<std::size_t>(codes.shape(0));
            const std::size_t channels = static_cast<std::size_t>(codes.shape(1));
            require_shape(counts, {channels, classes, bins}, "counts");
            const Labels checked = labels_of(labels, classes, samples);
            std::uint32_t* out = counts.mutable_data();
            const std::uint8_t* in = codes.data();
            const py::ssize_t sample_stride = codes.strides(0), channel_stride = codes.strides(1);
            py::gil_scoped_release release;  // as above
            add_counts(in, sample_stride, channel_stride, samples, channels, bins, checked, out, threads);
        },
        py::arg("codes").noconvert(), py::arg("bins"), py::arg("labels").noconvert(), py::arg("classes"),
        py::arg("counts").noconvert(), py::arg("threads"));

    module.def(
        "add_soft_counts",
        [](const py::array_t<std::uint8_t>& codes, std::size_t bins, const Array<std::uint32_t>& weights,
           Array<std::uint32_t>& counts, std::size_t threads) {
            if (codes.ndim() != 2 || weights.ndim() != 2) throw std::invalid_argument("two dimensions wanted");
            const std::size_t samples = static_cast<std::size_t>(codes.shape(0));
            const std::size_t channels = static_cast<std::size_t>(codes.shape(1));
            const std::size_t classes = static_cast<std::size_t>(weights.shape(1));
            require_shape(weights, {samples, classes}, "weights");
            require_shape(counts, {channels, classes, bins}, "counts");
            std::uint32_t* out = counts.mutable_data();
            const std::uint8_t* in = codes.data();
            const std::uint32_t* weight = weights.data();
            const py::ssize_t sample_stride = codes.strides(0), channel_stride = codes.strides(1);
            py::gil_scoped_release release;  // as above
            add_soft_counts(in, sample_stride, channel_stride, samples, channels, bins, weight, classes, out, threads);
        },
        py::arg("codes").noconvert(), py::arg("bins"), py::arg("weights").noconvert(), py::arg("counts").noconvert(),
        py::arg("threads"));
}
