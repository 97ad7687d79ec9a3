// The XLA FFI handlers: they check what they are given, and hand it to the kernels.

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

constexpr int kPrelu = 10;
constexpr int64_t kScalars = 4;  // alpha, a, b, c

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
    default: return "another type";
  }
}

// The names of the attributes, all int32, in their order.
const std::vector<const char*> kForward = {"batch_axes", "neuron_type"};
const std::vector<const char*> kGradient = {"batch_axes", "bias_gradient", "from_y", "neuron_type",
                                            "slope_gradient"};

// Takes the attributes and buffers of one call in their order and remembers the first thing wrong.
class Call {
 public:
  Call(const char* name, ffi::RemainingArgs args, ffi::RemainingRets rets, ffi::Dictionary attributes,
       const std::vector<const char*>& names)
      : name_(name), args_(args), operands_(args.size()), rets_(rets) {
    take_attributes(attributes, names);
    if (failed()) return;
    const bool with_gradient = names.size() == kGradient.size();
    const int32_t matrix_axes = values_[0];
    type_ = values_[with_gradient ? 3 : 1];
    bias_gradient_ = with_gradient && values_[1];
    from_y_ = with_gradient && values_[2];
    slope_gradient_ = with_gradient && values_[4];
    if (type_ < 0 || type_ >= kNeuronTypes) {
      fail("neuron_type is " + std::to_string(type_) + "; it may be 0 to " +
           std::to_string(kNeuronTypes - 1));
    } else if (matrix_axes < 0 || matrix_axes > kMatrixAxes) {
      fail("batch_axes is " + std::to_string(matrix_axes) + "; it may be 0 to " +
           std::to_string(kMatrixAxes));
    } else {
      arrays_.matrices.axes = matrix_axes;
    }
  }

  // Operands x or (gradient, x, or y with from_y), scalars, [bias], [slope]; slope with PReLU alone.
  void take_operands(bool with_gradient) {
    if (failed()) return;
    const size_t fixed = (with_gradient ? 3 : 2) + (type_ == kPrelu);
    if (operands_ != fixed && operands_ != fixed + 1) {
      return fail("it has " + std::to_string(operands_) + " operands; it may have " +
                  std::to_string(fixed) + ", or one more with a bias");
    }
    if (rets_.size() == 0) return fail("it has no result");
    size_t next = with_gradient ? 1 : 0;
    const ffi::AnyBuffer x = operand(next++);
    const bool by_column = operands_ == fixed + 1 || type_ == kPrelu;
    take_types(x.element_type());
    if (!failed()) take_sizes(x.dimensions(), ret(0).dimensions(), by_column);
    if (failed()) return;

    Dimensions like = x.dimensions();
    if (with_gradient) arrays_.gradient = elements("gradient", operand(0), like, false);
    arrays_.x = elements("x", x, like, false);
    arrays_.scalars = vectors("scalars", operand(next++), kScalars, false);
    if (operands_ == fixed + 1) {
      arrays_.bias = vectors("bias", operand(next++), arrays_.channels, false);
    }
    if (type_ == kPrelu) arrays_.slope = vectors("slope", operand(next++), arrays_.channels, false);
    arrays_.result = const_cast<char*>(elements("the first result", ret(0), like, true).data);
  }

  // Results data, [bias gradient], [slope gradient]; those that the attributes want.
  void take_sums() {
    if (failed()) return;
    const bool bias = bias_gradient_, slope = slope_gradient_;
    if (slope && type_ != kPrelu) return fail("a slope gradient is wanted; only PReLU has slopes");
    if (bias && !arrays_.bias.present) return fail("a bias gradient is wanted; there is no bias");
    const size_t wanted = size_t{1} + bias + slope;
    if (rets_.size() != wanted) {
      return fail("it has " + std::to_string(rets_.size()) + " results; it may have " +
                  std::to_string(wanted));
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
    if (!function) fail("from_y is 1; for neuron_type " + std::to_string(type_) + " it may be 0");
    if (failed()) return ffi::Error::InvalidArgument(error_);
    const bool done = storage_ == Storage::float64
                          ? jax_mps_neuron::run<double>(pool, arrays_, function)
                          : jax_mps_neuron::run<float>(pool, arrays_, function);
    if (done) return ffi::Error::Success();
    return ffi::Error(ffi::ErrorCode::kResourceExhausted,
                      std::string(name_) + ": no memory for the sums of the strips");
  }

 private:
  bool failed() const { return !error_.empty(); }
  void fail(const std::string& what) {
    if (!failed()) error_ = std::string(name_) + ": " + what;
  }

  // A call without attributes has them as its last operand: XLA before jaxlib 0.7 reads attributes as
  // JSON, which they are not, and ends the process, where a call is the root of a computation in which
  // a matrix meets a vector.
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
      return fail("it has " + std::to_string(attributes.size()) + " attributes; it may have " +
                  std::to_string(names.size()));
    }
    for (const char* name : names) {
      ffi::ErrorOr<int32_t> value = attributes.get<int32_t>(name);
      if (!value.has_value()) return fail(std::string("it has no int32 attribute ") + name);
      values_.push_back(*value);
    }
  }

  // Callers have checked the count.
  ffi::AnyBuffer operand(size_t i) { return *args_.get<ffi::AnyBuffer>(i); }
  ffi::AnyBuffer ret(size_t i) { return **rets_.get<ffi::AnyBuffer>(i); }

  void take_types(ffi::DataType type) {
    auto storage = storage_of(type);
    if (!storage) return fail("x has a dtype that is not float32, float16, bfloat16 or float64");
    storage_ = *storage;
    element_type_ = type;
    compute_type_ = storage_ == Storage::float64 ? ffi::DataType::F64 : ffi::DataType::F32;
    arrays_.element_size = storage_ == Storage::float64 ? 8 : storage_ == Storage::float32 ? 4 : 2;
    arrays_.compute_size = storage_ == Storage::float64 ? 8 : 4;
  }

  // The matrices are those of the result, which has as many as all operands together.
  void take_sizes(Dimensions x, Dimensions result, bool by_column) {
    const size_t axes = arrays_.matrices.axes;
    if (x.size() < axes + by_column || result.size() < axes) {
      return fail("x has shape " + to_string(x) + " and the first result " + to_string(result) +
                  "; they may have " + std::to_string(axes) + " axes of matrices" +
                  (by_column ? ", then rows and channels" : ""));
    }
    for (size_t i = 0; i < axes; ++i) arrays_.matrices.sizes[i] = result[i];
    arrays_.rows = 1;
    for (size_t i = axes; i + 1 < x.size(); ++i) arrays_.rows *= x[i];
    arrays_.channels = x.size() > axes ? x[x.size() - 1] : 1;
  }

  // Whether a shape starts with the axes of matrices (an operand's of size 1 or all) and ends like
  // `like` from there on; sets the steps of an operand whose matrices have `bytes`.
  bool fits(Dimensions shape, const int64_t* rest, size_t rest_size, bool is_result, int64_t bytes,
            Operand& operand) {
    const Matrices& m = arrays_.matrices;
    if (shape.size() != m.axes + rest_size) return false;
    for (size_t i = 0; i < rest_size; ++i) {
      if (shape[m.axes + i] != rest[i]) return false;
    }
    for (int i = m.axes - 1; i >= 0; --i) {
      if (shape[i] != m.sizes[i] && (is_result || shape[i] != 1)) return false;
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
      for (int i = 0; i < arrays_.matrices.axes; ++i) {
        expected += (is_result ? "" : "1 or ") + std::to_string(arrays_.matrices.sizes[i]) + ", ";
      }
      for (size_t i = 0; i < rest_size; ++i) expected += std::to_string(rest[i]) + ", ";
      if (expected.size() > 1) expected.resize(expected.size() - 2);
      fail(std::string(what) + " has shape " + to_string(buffer.dimensions()) + "; it may have " +
           expected + "]");
    } else if (buffer.element_type() != type) {
      fail(std::string(what) + " has dtype " + dtype_name(buffer.element_type()) + "; it may have " +
           dtype_name(type));
    }
    operand.present = true;
    operand.data = static_cast<const char*>(buffer.untyped_data());
    return operand;
  }

  // A buffer like x, up to the matrices.
  Operand elements(const char* what, const ffi::AnyBuffer& buffer, Dimensions x, bool is_result) {
    const size_t axes = arrays_.matrices.axes;
    return take(what, buffer, x.begin() + axes, x.size() - axes, is_result,
                arrays_.rows * arrays_.channels * arrays_.element_size, element_type_);
  }

  // `size` numbers a matrix, in the compute type.
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
  call.take_operands(/*with_gradient=*/false);
  call.take_sums();
  return call.run(pool, &Kernels::forward);
}

ffi::Error neuron_gradient(ffi::ThreadPool pool, ffi::RemainingArgs args, ffi::RemainingRets rets,
                           ffi::Dictionary attributes) {
  Call call("jax_mps_neuron.neuron_gradient", args, rets, attributes, kGradient);
  call.take_operands(/*with_gradient=*/true);
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

// What the package's Python and this library agree on: one more with each change of operands, attributes or
// functions. native.py has the same number.
JMN_EXPORT int jmn_abi() { return 2; }

// The FFI API this library speaks. jaxlib refuses a handler of a newer minor version than its own, and
// its CPU backend with it, so the version is compared before anything is registered.
JMN_EXPORT int jmn_ffi_api_major() { return XLA_FFI_API_MAJOR; }
JMN_EXPORT int jmn_ffi_api_minor() { return XLA_FFI_API_MINOR; }
