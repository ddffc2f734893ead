// Selection by joint mutual information.
#include "bindings.hpp"
#include "edgeprune/jmi.hpp"

using namespace edgeprune;

void bind_jmi(py::module_& module) {
    module.def(
        "jmi_selection",
        [](const std::vector<Array<std::uint8_t>>& sources, std::size_t bins, const Array<std::int32_t>& labels,
           std::size_t classes, std::size_t choose, double share, const Array<double>& first,
           const Array<double>& later, const Array<bool>& candidates, bool correct, std::size_t threads) {
            if (sources.empty() || sources[0].ndim() != 2)
                throw std::invalid_argument("codes must be (channels, samples)");
            const std::size_t channels = static_cast<std::size_t>(sources[0].shape(0));
            const std::size_t samples = static_cast<std::size_t>(sources[0].shape(1));
            const Labels checked = labels_of(labels, classes, samples);
            std::vector<const std::uint8_t*> codes;
            for (const Array<std::uint8_t>& source : sources) {
                require_shape(source, {channels, samples}, "codes");
                codes.push_back(source.data());
            }
            require_shape(first, {channels}, "first");
            require_shape(later, {channels}, "later");
            require_shape(candidates, {channels}, "candidates");
            const Goal goal{share, first.data(), later.data()};
            const bool* allowed = candidates.data();
            Selection result;
            {
                py::gil_scoped_release release;  // reads arrays that the arguments keep alive
                result = jmi_selection(codes, channels, bins, checked, choose, goal, allowed, correct, threads);
            }
            Array<std::int64_t> order(static_cast<py::ssize_t>(result.order.size()), result.order.data());
            Array<double> score(static_cast<py::ssize_t>(result.score.size()), result.score.data());
            return py::make_tuple(order, score);
        },
        py::arg("sources").noconvert(), py::arg("bins"), py::arg("labels").noconvert(), py::arg("classes"),
        py::arg("choose"), py::arg("share"), py::arg("first").noconvert(), py::arg("later").noconvert(),
        py::arg("candidates").noconvert(), py::arg("correct"), py::arg("threads"));

    module.def(
        "joint_information",
        [](const Array<std::uint8_t>& codes, std::size_t bins, const Array<std::int32_t>& labels, std::size_t classes,
           std::size_t other, bool correct, std::size_t threads) {
            if (codes.ndim() != 2) throw std::invalid_argument("codes must be (channels, samples)");
            const std::size_t channels = static_cast<std::size_t>(codes.shape(0));
            const Labels checked = labels_of(labels, classes, static_cast<std::size_t>(codes.shape(1)));
            Array<double> out(static_cast<py::ssize_t>(channels));
            double* values = out.mutable_data();
            const std::uint8_t* in = codes.data();
            {
                py::gil_scoped_release release;  // as above
                joint_information(in, channels, bins, checked, other, correct, values, threads);
            }
            return out;
        },
        py::arg("codes").noconvert(), py::arg("bins"), py::arg("labels").noconvert(), py::arg("classes"),
        py::arg("other"), py::arg("correct"), py::arg("threads"));
}
