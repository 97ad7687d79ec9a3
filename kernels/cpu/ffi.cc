// The XLA FFI handlers: they check what they are given, and hand it to the kernels.

#include <optional>
#include <string>

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

// Takes the buffers of one call in their order and remembers the first thing wrong with them.
class Call {
 public:
  Call(const char* name, ffi::RemainingArgs args, ffi::RemainingRets rets, int32_t neuron_type)
      : name_(name), args_(args), rets_(rets), type_(neuron_type) {
    if (type_ < 0 || type_ >= kNeuronTypes) {
      fail("neuron_type is " + std::to_string(type_) + "; it may be 0 to 15");
    }
  }

  // Operands x or (gradient, x), scalars, [bias], [slope]; slope with PReLU alone.
  void take_operands(bool with_gradient) {
    const size_t fixed = (with_gradient ? 3 : 2) + (type_ == kPrelu);
    if (args_.size() != fixed && args_.size() != fixed + 1) {
      return fail("it has " + std::to_string(args_.size()) + " operands; it may have " +
                  std::to_string(fixed) + ", or one more with a bias");
    }
    if (rets_.size() == 0) return fail("it has no result");
    size_t next = with_gradient ? 1 : 0;
    ffi::AnyBuffer x = operand(next++);
    auto storage = storage_of(x.element_type());
    if (!storage) return fail("x is not of a float32, float16, bfloat16 or float64 type");
    storage_ = *storage;
    Dimensions shape = x.dimensions();
    if (shape.size() < 2) {
      return fail("x has shape " + to_string(shape) + "; it may be [matrices, ..., channels]");
    }
    arrays_.element_size = storage_ == Storage::float64 ? 8 : storage_ == Storage::float32 ? 4 : 2;
    arrays_.compute_size = storage_ == Storage::float64 ? 8 : 4;
    compute_type_ = storage_ == Storage::float64 ? ffi::DataType::F64 : ffi::DataType::F32;
    element_type_ = x.element_type();
    arrays_.channels = shape[shape.size() - 1];
    arrays_.rows = 1;
    for (size_t i = 1; i + 1 < shape.size(); ++i) arrays_.rows *= shape[i];
    rank_ = shape.size();

    // The result has as many matrices as any operand.
    arrays_.matrices = ret(0).dimensions().size() ? ret(0).dimensions()[0] : 0;
    if (with_gradient) arrays_.gradient = matrices("gradient", operand(0), shape);
    arrays_.x = matrices("x", x, shape);
    arrays_.scalars = vectors("scalars", operand(next++), kScalars);
    if (args_.size() == fixed + 1) arrays_.bias = vectors("bias", operand(next++), arrays_.channels);
    if (type_ == kPrelu) arrays_.slope = vectors("slope", operand(next++), arrays_.channels);
    Operand result = matrices("the first result", ret(0), shape);
    arrays_.result = const_cast<char*>(result.data);
  }

  // Results data, [bias gradient], [slope gradient].
  void take_sums(bool bias, bool slope) {
    if (failed()) return;
    if (slope && type_ != kPrelu) return fail("a slope gradient is wanted; only PReLU has slopes");
    size_t wanted = size_t{1} + bias + slope;
    if (rets_.size() != wanted) {
      return fail("it has " + std::to_string(rets_.size()) + " results; it may have " +
                  std::to_string(wanted));
    }
    size_t next = 1;
    if (bias) arrays_.bias_sum = sum("the bias gradient", ret(next++));
    if (slope) arrays_.slope_sum = sum("the slope gradient", ret(next++));
  }

  template <typename Pool>
  ffi::Error run(Pool& pool, void (*Kernels::*kernel)(const Strip&)) {
    if (failed()) return ffi::Error::InvalidArgument(error_);
    auto* function = kernels(storage_, type_).*kernel;
    bool done = storage_ == Storage::float64
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

  // Callers have checked the count.
  ffi::AnyBuffer operand(size_t i) { return *args_.get<ffi::AnyBuffer>(i); }
  ffi::AnyBuffer ret(size_t i) { return **rets_.get<ffi::AnyBuffer>(i); }

  Operand step(const ffi::AnyBuffer& buffer, int64_t bytes) {
    const bool shared = buffer.dimensions()[0] == 1;
    return {static_cast<const char*>(buffer.untyped_data()), shared ? 0 : bytes};
  }

  // A buffer like x: same dtype, same shape but for a leading 1 or M.
  Operand matrices(const char* what, const ffi::AnyBuffer& buffer, Dimensions like) {
    Dimensions shape = buffer.dimensions();
    bool fits = shape.size() == rank_ && (shape[0] == 1 || shape[0] == arrays_.matrices);
    for (size_t i = 1; fits && i < rank_; ++i) fits = shape[i] == like[i];
    if (!fits) {
      fail(std::string(what) + " has shape " + to_string(shape) + "; it may be [1 or " +
           std::to_string(arrays_.matrices) + ", ...] like x's " + to_string(like));
      return {};
    }
    if (buffer.element_type() != element_type_) {
      fail(std::string(what) + " has another dtype than x");
      return {};
    }
    return step(buffer, arrays_.rows * arrays_.channels * arrays_.element_size);
  }

  // A buffer of [1 or M, size] in the compute type.
  Operand vectors(const char* what, const ffi::AnyBuffer& buffer, int64_t size) {
    Dimensions shape = buffer.dimensions();
    if (shape.size() != 2 || (shape[0] != 1 && shape[0] != arrays_.matrices) || shape[1] != size) {
      fail(std::string(what) + " has shape " + to_string(shape) + "; it may be [1 or " +
           std::to_string(arrays_.matrices) + ", " + std::to_string(size) + "]");
      return {};
    }
    if (buffer.element_type() != compute_type_) {
      fail(std::string(what) + " has another dtype than x is computed in");
      return {};
    }
    return step(buffer, size * arrays_.compute_size);
  }

  char* sum(const char* what, const ffi::AnyBuffer& buffer) {
    Dimensions shape = buffer.dimensions();
    if (shape.size() == 2 && shape[0] != arrays_.matrices) {
      fail(std::string(what) + " has shape " + to_string(shape) + " for " +
           std::to_string(arrays_.matrices) + " matrices");
    }
    return const_cast<char*>(vectors(what, buffer, arrays_.channels).data);
  }

  const char* name_;
  ffi::RemainingArgs args_;
  ffi::RemainingRets rets_;
  int32_t type_;
  std::string error_;
  Arrays arrays_;
  Storage storage_ = Storage::float32;
  ffi::DataType element_type_ = ffi::DataType::INVALID;
  ffi::DataType compute_type_ = ffi::DataType::INVALID;
  size_t rank_ = 0;
};

ffi::Error neuron(ffi::ThreadPool pool, ffi::RemainingArgs args, ffi::RemainingRets rets,
                  int32_t neuron_type) {
  Call call("jax_mps_neuron.neuron", args, rets, neuron_type);
  call.take_operands(/*with_gradient=*/false);
  call.take_sums(/*bias=*/false, /*slope=*/false);
  return call.run(pool, &Kernels::forward);
}

ffi::Error neuron_gradient(ffi::ThreadPool pool, ffi::RemainingArgs args, ffi::RemainingRets rets,
                           int32_t neuron_type, int32_t bias_gradient, int32_t slope_gradient) {
  Call call("jax_mps_neuron.neuron_gradient", args, rets, neuron_type);
  call.take_operands(/*with_gradient=*/true);
  call.take_sums(bias_gradient, slope_gradient);
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
                                  .Attr<int32_t>("neuron_type"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(jmn_neuron_gradient, jax_mps_neuron::neuron_gradient,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .RemainingArgs()
                                  .RemainingRets()
                                  .Attr<int32_t>("neuron_type")
                                  .Attr<int32_t>("bias_gradient")
                                  .Attr<int32_t>("slope_gradient"));

// The FFI API this library speaks. jaxlib refuses a handler of a newer minor version than its own, and
// its CPU backend with it, so the version is compared before anything is registered.
JMN_EXPORT int jmn_ffi_api_major() { return XLA_FFI_API_MAJOR; }
JMN_EXPORT int jmn_ffi_api_minor() { return XLA_FFI_API_MINOR; }
