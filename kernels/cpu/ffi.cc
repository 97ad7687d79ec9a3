// The XLA FFI handlers. They check a call and run the kernels.

#include <optional>
#include <string>
#include <vector>

#include "arrays.h"
#include "isa.h"
#include "xla/ffi/api/ffi.h"

namespace jax_mps_neuron {
namespace {

namespace ffi = xla::ffi;
using Dimensions = ffi::AnyBuffer::Dimensions;

constexpr int64_t kScalars = 4;  // alpha, a, b, c

// Whether a type has slopes.
bool has_slope(int32_t neuron_type) {
  switch (neuron_type) {
#define CASE(raw, Op) case raw: return ::neuron::HasSlope<::neuron::Op>::value;
    NEURON_TYPES(CASE)
#undef CASE
    default: return false;
  }
}

std::string to_string(Dimensions dimensions) {
  std::string text = "[";
  for (size_t i = 0; i < dimensions.size(); ++i) {
    text += (i ? ", " : "") + std::to_string(dimensions[i]);
  }
  return text + "]";
}

std::optional<Storage> storage_of(ffi::DataType type) {
  switch (type) {
    case ffi::DataType::F32: return Storage::float32;
    case ffi::DataType::F16: return Storage::float16;
    case ffi::DataType::BF16: return Storage::bfloat16;
    case ffi::DataType::F64: return Storage::float64;
    default: return std::nullopt;
  }
}

std::string dtype_name(ffi::DataType type) {
  switch (type) {
    case ffi::DataType::F32: return "float32";
    case ffi::DataType::F16: return "float16";
    case ffi::DataType::BF16: return "bfloat16";
    case ffi::DataType::F64: return "float64";
    default: return "XLA's type " + std::to_string(static_cast<int>(type));
  }
}

// The names of the attributes, all int32, in alphabetical order.
const std::vector<const char*> kForward = {"batch_axes", "neuron_type"};
const std::vector<const char*> kGradient = {"batch_axes", "bias_gradient", "from_y", "neuron_type",
                                            "slope_gradient"};

// Reads the attributes and buffers of a call in their order and keeps the first error.
class Call {
 public:
  Call(const char* name, ffi::RemainingArgs args, ffi::RemainingRets rets, ffi::Dictionary attributes,
       const std::vector<const char*>& names)
      : name_(name), args_(args), operands_(args.size()), rets_(rets) {
    take_attributes(attributes, names);
    if (failed()) return;
    const bool is_gradient = names.size() == kGradient.size();
    const int32_t batch_axes = values_[0];
    type_ = values_[is_gradient ? 3 : 1];
    bias_gradient_ = is_gradient && values_[1];
    from_y_ = is_gradient && values_[2];
    slope_gradient_ = is_gradient && values_[4];
    if (position_of(type_) == kNeuronTypes) {
      fail("neuron_type must be the raw value of a NeuronType, got " + std::to_string(type_));
    } else if (batch_axes < 0 || batch_axes > kBatchAxes) {
      fail("batch_axes must be 0 to " + std::to_string(kBatchAxes) + ", got " + std::to_string(batch_axes));
    } else {
      arrays_.batch.axes = batch_axes;
    }
  }

  // Operands: [gradient], x (y with from_y), scalars, [bias], [slope]. A type with slopes always has the slope operand.
  void take_operands(bool is_gradient) {
    if (failed()) return;
    const bool with_slope = has_slope(type_);
    const size_t fixed = (is_gradient ? 3 : 2) + with_slope;
    if (operands_ != fixed && operands_ != fixed + 1) {
      return fail("the number of operands must be " + std::to_string(fixed) + ", or " +
                  std::to_string(fixed + 1) + " with a bias, got " + std::to_string(operands_));
    }
    if (rets_.size() == 0) return fail("the number of results must be at least 1, got 0");
    size_t next = is_gradient ? 1 : 0;
    const ffi::AnyBuffer x = operand(next++);
    const bool by_column = operands_ == fixed + 1 || with_slope;
    take_types(x.element_type());
    if (!failed()) take_sizes(x.dimensions(), ret(0).dimensions(), by_column);
    if (failed()) return;

    Dimensions like = x.dimensions();
    if (is_gradient) arrays_.gradient = elements("gradient", operand(0), like, false);
    arrays_.x = elements("x", x, like, false);
    arrays_.scalars = vectors("scalars", operand(next++), kScalars, false);
    if (operands_ == fixed + 1) {
      arrays_.bias = vectors("bias", operand(next++), arrays_.channels, false);
    }
    if (with_slope) arrays_.slope = vectors("slope", operand(next++), arrays_.channels, false);
    arrays_.result = const_cast<char*>(elements("the first result", ret(0), like, true).data);
  }

  // Results: y or data, then the bias gradient and the slope gradient if their attributes are set.
  void take_sums() {
    if (failed()) return;
    const bool bias = bias_gradient_, slope = slope_gradient_;
    if (slope && !arrays_.slope.present) return fail("slope_gradient must be 0 for a type without slopes, got 1");
    if (bias && !arrays_.bias.present) return fail("bias_gradient must be 0 without a bias, got 1");
    const size_t wanted = size_t{1} + bias + slope;
    if (rets_.size() != wanted) {
      return fail("the number of results must be " + std::to_string(wanted) + ", got " +
                  std::to_string(rets_.size()));
    }
    auto sum = [&](const char* what, const ffi::AnyBuffer& buffer) {
      return const_cast<char*>(vectors(what, buffer, arrays_.channels, true).data);
    };
    size_t next = 1;
    if (bias) arrays_.bias_sum = sum("the bias gradient", ret(next++));
    if (slope) arrays_.slope_sum = sum("the slope gradient", ret(next++));
  }

  template <typename Pool>
  ffi::Error run(Pool& pool, void (*Kernels::*kernel)(const Strip&)) {
    auto* function = failed() ? nullptr : kernels(storage_, type_).*(from_y_ ? &Kernels::gradient_of_value : kernel);
    if (!function) fail("from_y must be 0 for neuron_type " + std::to_string(type_) + ", got 1");
    if (failed()) return ffi::Error::InvalidArgument(error_);
    const bool done = storage_ == Storage::float64
                          ? jax_mps_neuron::run<double>(pool, arrays_, function)
                          : jax_mps_neuron::run<float>(pool, arrays_, function);
    if (done) return ffi::Error::Success();
    return ffi::Error(ffi::ErrorCode::kResourceExhausted,
                      std::string(name_) + ": out of memory for partial sums");
  }

 private:
  bool failed() const { return !error_.empty(); }
  void fail(const std::string& what) {
    if (!failed()) error_ = std::string(name_) + ": " + what;
  }

  // A call without attributes has them as its last operand, in their order. XLA before jaxlib 0.7 parses attributes as
  // JSON, which they are not, and aborts if such a call is the root of a computation with a matrix-vector product.
  void take_attributes(ffi::Dictionary attributes, const std::vector<const char*>& names) {
    if (attributes.size() == 0 && operands_ > 0) {
      const ffi::AnyBuffer last = operand(operands_ - 1);
      const Dimensions shape = last.dimensions();
      if (last.element_type() == ffi::DataType::S32 && shape.size() == 1 &&
          shape[0] == static_cast<int64_t>(names.size())) {
        const int32_t* values = static_cast<const int32_t*>(last.untyped_data());
        values_.assign(values, values + names.size());
        --operands_;
        return;
      }
    }
    if (attributes.size() != names.size()) {
      return fail("the number of attributes must be " + std::to_string(names.size()) + ", got " +
                  std::to_string(attributes.size()));
    }
    for (const char* name : names) {
      ffi::ErrorOr<int32_t> value = attributes.get<int32_t>(name);
      if (!value.has_value()) return fail("attribute " + std::string(name) + " must be an int32, got none");
      values_.push_back(*value);
    }
  }

  // These require that the call has an i-th buffer.
  ffi::AnyBuffer operand(size_t i) { return *args_.get<ffi::AnyBuffer>(i); }
  ffi::AnyBuffer ret(size_t i) { return **rets_.get<ffi::AnyBuffer>(i); }

  void take_types(ffi::DataType type) {
    auto storage = storage_of(type);
    if (!storage) return fail("x must have dtype float32, float16, bfloat16 or float64, got " + dtype_name(type));
    storage_ = *storage;
    element_type_ = type;
    compute_type_ = storage_ == Storage::float64 ? ffi::DataType::F64 : ffi::DataType::F32;
    arrays_.element_size = storage_ == Storage::float64 ? 8 : storage_ == Storage::float32 ? 4 : 2;
    arrays_.compute_size = storage_ == Storage::float64 ? 8 : 4;
  }

  // Takes the sizes of batch axes from the result: those of operands broadcast to them.
  void take_sizes(Dimensions x, Dimensions result, bool by_column) {
    const size_t axes = arrays_.batch.axes;
    auto check = [&](const char* what, Dimensions shape, size_t least) {
      if (shape.size() >= least) return;
      fail(std::string(what) + " must have at least " + std::to_string(least) + " axes, got shape " +
           to_string(shape));
    };
    check("x", x, axes + by_column);
    check("the first result", result, axes);
    if (failed()) return;
    for (size_t i = 0; i < axes; ++i) arrays_.batch.sizes[i] = result[i];
    arrays_.rows = 1;
    for (size_t i = axes; i + 1 < x.size(); ++i) arrays_.rows *= x[i];
    arrays_.channels = x.size() > axes ? x[x.size() - 1] : 1;
  }

  // Whether a shape is the batch axes (each of size 1 or whole, for an operand), then `rest`. Sets the steps of an
  // operand whose entries have `bytes` bytes.
  bool fits(Dimensions shape, const int64_t* rest, size_t rest_size, bool is_result, int64_t bytes,
            Operand& operand) {
    const Batch& batch = arrays_.batch;
    if (shape.size() != batch.axes + rest_size) return false;
    for (size_t i = 0; i < rest_size; ++i) {
      if (shape[batch.axes + i] != rest[i]) return false;
    }
    for (int i = batch.axes - 1; i >= 0; --i) {
      if (shape[i] != batch.sizes[i] && (is_result || shape[i] != 1)) return false;
      operand.steps[i] = shape[i] == 1 ? 0 : bytes;
      bytes *= shape[i];
    }
    return true;
  }

  Operand take(const char* what, const ffi::AnyBuffer& buffer, const int64_t* rest, size_t rest_size,
               bool is_result, int64_t bytes, ffi::DataType type) {
    Operand operand;
    if (!fits(buffer.dimensions(), rest, rest_size, is_result, bytes, operand)) {
      std::string expected = "[";
      for (int i = 0; i < arrays_.batch.axes; ++i) {
        expected += (is_result ? "" : "1 or ") + std::to_string(arrays_.batch.sizes[i]) + ", ";
      }
      for (size_t i = 0; i < rest_size; ++i) expected += std::to_string(rest[i]) + ", ";
      if (expected.size() > 1) expected.resize(expected.size() - 2);
      fail(std::string(what) + " must have shape " + expected + "], got " + to_string(buffer.dimensions()));
    } else if (buffer.element_type() != type) {
      fail(std::string(what) + " must have dtype " + dtype_name(type) + ", got " +
           dtype_name(buffer.element_type()));
    }
    operand.present = true;
    operand.data = static_cast<const char*>(buffer.untyped_data());
    return operand;
  }

  // A buffer of x's shape, except for its batch axes.
  Operand elements(const char* what, const ffi::AnyBuffer& buffer, Dimensions x, bool is_result) {
    const size_t axes = arrays_.batch.axes;
    return take(what, buffer, x.begin() + axes, x.size() - axes, is_result,
                arrays_.rows * arrays_.channels * arrays_.element_size, element_type_);
  }

  // A buffer of `size` numbers per batch entry, in the compute type.
  Operand vectors(const char* what, const ffi::AnyBuffer& buffer, int64_t size, bool is_result) {
    return take(what, buffer, &size, 1, is_result, size * arrays_.compute_size, compute_type_);
  }

  const char* name_;
  ffi::RemainingArgs args_;
  size_t operands_;  // without the attributes
  ffi::RemainingRets rets_;
  std::vector<int32_t> values_;  // of the attributes
  int32_t type_ = 0;
  bool bias_gradient_ = false;
  bool from_y_ = false;
  bool slope_gradient_ = false;
  std::string error_;
  Arrays arrays_;
  Storage storage_ = Storage::float32;
  ffi::DataType element_type_ = ffi::DataType::INVALID;
  ffi::DataType compute_type_ = ffi::DataType::INVALID;
};

ffi::Error neuron(ffi::ThreadPool pool, ffi::RemainingArgs args, ffi::RemainingRets rets,
                  ffi::Dictionary attributes) {
  Call call("jax_mps_neuron.neuron", args, rets, attributes, kForward);
  call.take_operands(/*is_gradient=*/false);
  call.take_sums();
  return call.run(pool, &Kernels::forward);
}

ffi::Error neuron_gradient(ffi::ThreadPool pool, ffi::RemainingArgs args, ffi::RemainingRets rets,
                           ffi::Dictionary attributes) {
  Call call("jax_mps_neuron.neuron_gradient", args, rets, attributes, kGradient);
  call.take_operands(/*is_gradient=*/true);
  call.take_sums();
  return call.run(pool, &Kernels::gradient);
}

}  // namespace
}  // namespace jax_mps_neuron

JMN_EXPORT XLA_FFI_Error* jmn_neuron(XLA_FFI_CallFrame*);
JMN_EXPORT XLA_FFI_Error* jmn_neuron_gradient(XLA_FFI_CallFrame*);

XLA_FFI_DEFINE_HANDLER_SYMBOL(jmn_neuron, jax_mps_neuron::neuron,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .RemainingArgs()
                                  .RemainingRets()
                                  .Attrs());

XLA_FFI_DEFINE_HANDLER_SYMBOL(jmn_neuron_gradient, jax_mps_neuron::neuron_gradient,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .RemainingArgs()
                                  .RemainingRets()
                                  .Attrs());

// The version of the interface to the package's Python, which has the same number. A change of operands, attributes or
// functions increments it.
JMN_EXPORT int jmn_abi() { return 2; }

// The FFI API version of this library. A jaxlib that finds a handler of a newer minor version loses its CPU backend, so
// Python compares the versions before it registers anything.
JMN_EXPORT int jmn_ffi_api_major() { return XLA_FFI_API_MAJOR; }
JMN_EXPORT int jmn_ffi_api_minor() { return XLA_FFI_API_MINOR; }
