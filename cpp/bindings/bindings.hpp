// What the binding files share: array types, and the one way a C++ View is made from a NumPy array.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>

#include "edgeprune/counts.hpp"
#include "edgeprune/view.hpp"

namespace py = pybind11;

void bind_counts(py::module_& module);
void bind_estimators(py::module_& module);
void bind_edge(py::module_& module);
void bind_gauss(py::module_& module);
void bind_jmi(py::module_& module);
void bind_reference(py::module_& module);

template <class T>
using Array = py::array_t<T, py::array::c_style>;  // bound with .noconvert(): never a silent copy

// dtype is "float32", "float64", "float16", or "bfloat16" (then the array holds its 16 bits).
inline edgeprune::View view_of(const py::array& x, const std::string& dtype) {
    if (x.ndim() != 2) throw std::invalid_argument("x must have two dimensions");
    edgeprune::View view;
    std::size_t item = 0;
    if (dtype == "float32") view.dtype = edgeprune::Dtype::float32, item = 4;
    else if (dtype == "float64") view.dtype = edgeprune::Dtype::float64, item = 8;
    else if (dtype == "float16") view.dtype = edgeprune::Dtype::float16, item = 2;
    else if (dtype == "bfloat16") view.dtype = edgeprune::Dtype::bfloat16, item = 2;
    else throw std::invalid_argument("unsupported type " + dtype);
    if (static_cast<std::size_t>(x.itemsize()) != item) throw std::invalid_argument("x is not " + dtype);
    view.data = x.data();
    view.samples = static_cast<std::size_t>(x.shape(0));
    view.channels = static_cast<std::size_t>(x.shape(1));
    view.sample_stride = x.strides(0);
    view.channel_stride = x.strides(1);
    return view;
}

inline edgeprune::Labels labels_of(const Array<std::int32_t>& labels, std::size_t classes, std::size_t samples) {
    if (labels.ndim() != 1 || static_cast<std::size_t>(labels.shape(0)) != samples)
        throw std::invalid_argument("labels must hold one entry per sample");
    edgeprune::Labels out{labels.data(), samples, classes};
    if (edgeprune::check_labels(out) != samples) throw std::invalid_argument("a label is out of range");
    return out;
}

template <class T>
void require_shape(const py::array_t<T, py::array::c_style>& array, std::initializer_list<std::size_t> shape,
                   const char* name) {
    bool good = static_cast<std::size_t>(array.ndim()) == shape.size();
    py::ssize_t axis = 0;
    for (const std::size_t length : shape) {
        if (good && static_cast<std::size_t>(array.shape(axis)) != length) good = false;
        ++axis;
    }
    if (!good) throw std::invalid_argument(std::string(name) + " has the wrong shape");
}
