// f and f' of every neuron type, one element at a time. Sources: MPSCNNNeuronType.h for f,
// MPSCNNNeuronGradient's table in MPSCNNNeuron.h for f'.
//
// C++, CUDA and Metal compile this file, so it uses only what all three accept: no pointers, no references, no
// inheritance, no double literals, no includes. It needs the macro INFINITY of <cmath> or <metal_stdlib>. Before the
// include, namespace NEURON_NAMESPACE must declare for each T in use
//   fabs, exp, exp_negative (exp for x <= 0), expm1 (for x <= 0), log, pow, tanh, and coarse_pow for 16-bit results.
// T is float or, in C++, double or a vector of floats; comparisons of vectors give masks, and their own select takes
// masks. double also needs its own
//   log1p_unit, normal_tail, normal_bound, inverse_sqrt_2pi,
// because those below have float's accuracy and range.

#ifndef NEURON_MATH_H
#define NEURON_MATH_H

#ifndef NEURON_NAMESPACE
#define NEURON_NAMESPACE neuron
#endif

#ifndef NEURON_INLINE
#define NEURON_INLINE static inline
#endif

namespace NEURON_NAMESPACE {

template <typename T>
NEURON_INLINE T select(bool which, T a, T b) { return which ? a : b; }

// ---- bounds -----------------------------------------------------------------------------------
// An infinite z gives f's limit where there is one. Arithmetic alone would make NaN of 0 * infinity and of
// infinity / infinity, so z is bounded where f has its limit already. NaN stays NaN.

template <typename T>
NEURON_INLINE T at_least(T z, T bound) { return select(z < bound, bound, z); }

template <typename T>
NEURON_INLINE T at_most(T z, T bound) { return select(z > bound, bound, z); }

template <typename T>
NEURON_INLINE T within(T z, T bound) { return at_most(at_least(z, -bound), bound); }

// ---- special functions ------------------------------------------------------------------------

// log(1 + x) on [0, 1]. With s = x / (2 + x) it equals 2 atanh(s) = 2s + 2 s^3 p(s^2), with p minimax to 4e-9 of the
// result. Writing 2s as x - s x confines all rounding but the last to a small term.
template <typename T>
NEURON_INLINE T log1p_unit(T x) {
  T s = x / (2.0f + x);
  T q = s * s;
  T p = 0.140891626f;
  p = p * q + 0.139803022f;
  p = p * q + 0.200124547f;
  p = p * q + 0.333331585f;
  return x - s * (x - (q + q) * p);
}

// Phi(-r) for r >= 0, given e = exp(-r^2 / 2). Phi(-r) / e is half the scaled complementary error function of
// r / sqrt(2). With t = 1 / (1 + 0.3125 r) it is t times a polynomial in t, minimax in relative error: 1e-8 on
// 0 <= r <= 14.5. The tail keeps its relative accuracy where 1 + erf cancels.
template <typename T>
NEURON_INLINE T normal_tail(T r, T e) {
  T t = 1.0f / (1.0f + 0.3125f * r);
  T p = -0.0190283358f;
  p = p * t + 0.0914462209f;
  p = p * t - 0.151106492f;
  p = p * t + 0.0742964968f;
  p = p * t - 0.00252952473f;
  p = p * t + 0.0555276945f;
  p = p * t + 0.0900960863f;
  p = p * t + 0.111881986f;
  p = p * t + 0.12475051f;
  p = p * t + 0.12466535f;
  return e * (p * t);
}

// exp(-z^2 / 2) underflows to 0 for |z| >= 14.42.
template <typename T>
NEURON_INLINE T normal_bound(T) { return 14.5f; }

template <typename T>
NEURON_INLINE T inverse_sqrt_2pi(T) { return 0.398942280f; }

// The logistic function 1 / (1 + e^-z).
template <typename T>
NEURON_INLINE T logistic(T z) {
  T e = exp_negative(-fabs(z));
  return select(z >= T(0), T(1), e) / (T(1) + e);
}

// Its derivative, e^-r / (e^-r + 1)^2, for r = |z|, given minus_r: it is even in z.
template <typename T>
NEURON_INLINE T logistic_derivative(T minus_r) {
  T e = exp_negative(minus_r);
  T r = T(1) / (T(1) + e);
  return e * r * r;
}

// ---- neuron types -----------------------------------------------------------------------------
// z is the argument alpha * x + bias. In f a NaN fails every comparison and reaches a branch that keeps it. f' takes
// the branch that the comparison selects.

template <typename T>
struct Parameters {
  T a, b, c;
};

struct None {
  template <typename T>
  NEURON_INLINE T value(T z, Parameters<T>) { return z; }
  template <typename T>
  NEURON_INLINE T derivative(T, Parameters<T>) { return T(1); }
};

struct Relu {
  template <typename T>
  NEURON_INLINE T value(T z, Parameters<T> p) { return select(z >= T(0), z, p.a * at_least(z, least(p))); }
  // Bounds z where a is 0: there any finite bound serves.
  template <typename T>
  NEURON_INLINE T least(Parameters<T> p) { return select(p.a == T(0), T(-1), T(-INFINITY)); }
  template <typename T>
  NEURON_INLINE T derivative(T z, Parameters<T> p) { return select(z >= T(0), T(1), p.a); }
};

struct Linear {
  template <typename T>
  NEURON_INLINE T value(T z, Parameters<T> p) { return p.a * z + p.b; }
  template <typename T>
  NEURON_INLINE T derivative(T, Parameters<T> p) { return p.a; }
};

struct Sigmoid {
  template <typename T>
  NEURON_INLINE T value(T z, Parameters<T>) { return logistic(z); }
  template <typename T>
  NEURON_INLINE T derivative(T z, Parameters<T>) { return logistic_derivative(-fabs(z)); }
};

// f' is a where 0 <= a*z + b <= 1. It compares a*z with -b and 1 - b, so that the kinks do not depend on whether the
// compiler fuses a*z + b into one rounding.
struct HardSigmoid {
  template <typename T>
  NEURON_INLINE T value(T z, Parameters<T> p) {
    T u = p.a * z + p.b;
    return select(u < T(0), T(0), select(u > T(1), T(1), u));
  }
  template <typename T>
  NEURON_INLINE T derivative(T z, Parameters<T> p) {
    T u = p.a * z;
    return select(u >= -p.b, select(u <= T(1) - p.b, p.a, T(0)), T(0));
  }
};

// 1 - tanh^2(u) is 4 e^2u / (e^2u + 1)^2, which does not cancel for large u.
struct Tanh {
  template <typename T>
  NEURON_INLINE T value(T z, Parameters<T> p) { return p.a * tanh(p.b * z); }
  template <typename T>
  NEURON_INLINE T derivative(T z, Parameters<T> p) {
    return p.a * p.b * (T(4) * logistic_derivative(-fabs(T(2) * (p.b * z))));
  }
};

struct Absolute {
  template <typename T>
  NEURON_INLINE T value(T z, Parameters<T>) { return fabs(z); }
  template <typename T>
  NEURON_INLINE T derivative(T z, Parameters<T>) {
    return select(z > T(0), T(1), select(z < T(0), T(-1), z));  // z is 0 or NaN there
  }
};

struct Softplus {
  template <typename T>
  NEURON_INLINE T value(T z, Parameters<T> p) {
    T u = p.b * z;
    return p.a * (select(u > T(0), u, T(0)) + log1p_unit(exp_negative(-fabs(u))));
  }
  template <typename T>
  NEURON_INLINE T derivative(T z, Parameters<T> p) { return p.a * p.b * logistic(p.b * z); }
};

struct Softsign {
  template <typename T>
  NEURON_INLINE T value(T z, Parameters<T>) {
    z = within(z, T(1e30f));  // f is 1 there
    return z / (T(1) + fabs(z));
  }
  template <typename T>
  NEURON_INLINE T derivative(T z, Parameters<T>) {
    T r = T(1) / (T(1) + fabs(z));
    return r * r;
  }
};

struct Elu {
  template <typename T>
  NEURON_INLINE T value(T z, Parameters<T> p) { return select(z >= T(0), z, p.a * expm1(z)); }
  template <typename T>
  NEURON_INLINE T derivative(T z, Parameters<T> p) { return select(z >= T(0), T(1), p.a * exp(z)); }
};

// ReLU with one a per channel, its slope.
struct Prelu {
  template <typename T>
  NEURON_INLINE T value(T z, Parameters<T> p) { return Relu::value(z, p); }
  template <typename T>
  NEURON_INLINE T derivative(T z, Parameters<T> p) { return Relu::derivative(z, p); }
  // df/da. The slope gradient is its sum over the rows.
  template <typename T>
  NEURON_INLINE T slope_derivative(T z) { return select(z >= T(0), T(0), z); }
};

struct Relun {
  template <typename T>
  NEURON_INLINE T value(T z, Parameters<T> p) {
    T r = Relu::value(z, p);
    return select(r >= p.b, p.b, r);
  }
  template <typename T>
  NEURON_INLINE T derivative(T z, Parameters<T> p) {
    return select(z >= p.b, T(0), select(z >= T(0), T(1), p.a));
  }
};

// x^y to T's precision.
struct Pow {
  template <typename T>
  NEURON_INLINE T of(T x, T y) { return pow(x, y); }
};

// x^y to 2^-16 in float, which a half or a bfloat cannot tell from exact. It costs less.
struct CoarsePow {
  template <typename T>
  NEURON_INLINE T of(T x, T y) { return coarse_pow(x, y); }
};

// x^N by multiplication, N from 0 to 3.
template <int N>
struct SmallPow {
  template <typename T>
  NEURON_INLINE T of(T x, T) { return N == 0 ? T(1) : N == 1 ? x : N == 2 ? x * x : x * x * x; }
};

template <typename P>
struct PowerBy {
  template <typename T>
  NEURON_INLINE T base(T z, Parameters<T> p) { return p.a * z + p.b; }
  template <typename T>
  NEURON_INLINE T value(T z, Parameters<T> p) { return P::of(base(z, p), p.c); }
  // f' is a c base^exponent.
  template <typename T>
  NEURON_INLINE T exponent(Parameters<T> p) { return p.c - T(1); }
  template <typename T>
  NEURON_INLINE T derivative(T z, Parameters<T> p) { return p.a * p.c * P::of(base(z, p), exponent(p)); }
};
using Power = PowerBy<Pow>;

struct Exponential {
  template <typename T>
  NEURON_INLINE T value(T z, Parameters<T> p) { return pow(p.c, p.a * z + p.b); }
  template <typename T>
  NEURON_INLINE T derivative(T z, Parameters<T> p) { return p.a * log(p.c) * value(z, p); }
};

struct NaturalExponential {
  template <typename T>
  NEURON_INLINE T value(T z, Parameters<T> p) { return exp(p.a * z + p.b); }
  template <typename T>
  NEURON_INLINE T derivative(T z, Parameters<T> p) { return p.a * value(z, p); }
};

struct Logarithm {
  template <typename T>
  NEURON_INLINE T value(T z, Parameters<T> p) { return log(p.a * z + p.b) / log(p.c); }
  template <typename T>
  NEURON_INLINE T derivative(T z, Parameters<T> p) { return p.a / log(p.c) / (p.a * z + p.b); }
};

struct NaturalLogarithm {
  template <typename T>
  NEURON_INLINE T value(T z, Parameters<T> p) { return log(p.a * z + p.b); }
  template <typename T>
  NEURON_INLINE T derivative(T z, Parameters<T> p) { return p.a / (p.a * z + p.b); }
};

// f = z Phi(z) and f' = Phi(z) + z phi(z), with the normal distribution function Phi and its density phi. Both need
// one exponential, exp(-z^2 / 2), which is 0 beyond normal_bound. Only the last factor z is bounded: earlier, the bound
// would delay everything after it.
struct Gelu {
  template <typename T>
  NEURON_INLINE T value(T z, Parameters<T>) {
    T r = fabs(z);
    T tail = normal_tail(r, exp_negative(T(-0.5f) * r * r));
    return at_least(z, -normal_bound(z)) * select(z >= T(0), T(1) - tail, tail);
  }
  template <typename T>
  NEURON_INLINE T derivative(T z, Parameters<T>) {
    T r = fabs(z);
    T e = exp_negative(T(-0.5f) * r * r);
    T tail = normal_tail(r, e);
    return select(z >= T(0), T(1) - tail, tail) + within(z, normal_bound(z)) * (e * inverse_sqrt_2pi(z));
  }
};

// f or f' of a type whose f is constant: a for numbers, b for NaN. See Factors.
struct Constant {
  template <typename T>
  NEURON_INLINE T value(T z, Parameters<T> p) { return select(z == z, p.a, p.b); }
  template <typename T>
  NEURON_INLINE T derivative(T z, Parameters<T> p) { return select(z == z, p.a, p.b); }
};

// f' as a function of y = f(z). Where rounding put y on a bound of f, f' is 0.
struct SigmoidOfValue {
  template <typename T>
  NEURON_INLINE T derivative(T y, Parameters<T>) { return y * (T(1) - y); }
};

struct TanhOfValue {
  template <typename T>
  NEURON_INLINE T derivative(T y, Parameters<T> p) {
    T t = select(p.a == T(0), T(0), y / p.a);
    t = select(t > T(1), T(1), select(t < T(-1), T(-1), t));  // rounding may put y beyond a
    return p.a * p.b * ((T(1) - t) * (T(1) + t));
  }
};

struct ExponentialOfValue {
  template <typename T>
  NEURON_INLINE T derivative(T y, Parameters<T> p) { return p.a * log(p.c) * y; }
};

struct NaturalExponentialOfValue {
  template <typename T>
  NEURON_INLINE T derivative(T y, Parameters<T> p) { return p.a * y; }
};

// ---- traits -----------------------------------------------------------------------------------
// What kernels ask of a type. The values are enumerators: Metal requires an address space for static data members.

// Whether parameter a is a slope: one value per channel, with a gradient of its own.
template <typename Op>
struct HasSlope { enum { value = false }; };
template <>
struct HasSlope<Prelu> { enum { value = true }; };

// Whether f' does not depend on z.
template <typename Op>
struct HasConstantDerivative { enum { value = false }; };
template <>
struct HasConstantDerivative<None> { enum { value = true }; };
template <>
struct HasConstantDerivative<Linear> { enum { value = true }; };

// The parameters that make f constant when one of them is 0. Then f(0) and f'(0) are also the limits at infinities, where
// arithmetic would give 0 * infinity. Kernels ask is_constant and run Constant instead.
template <typename Op>
struct Factors { enum { a = false, b = false }; };
template <>
struct Factors<Linear> { enum { a = true, b = false }; };
template <>
struct Factors<HardSigmoid> { enum { a = true, b = false }; };
template <>
struct Factors<Tanh> { enum { a = false, b = true }; };
template <>
struct Factors<Softplus> { enum { a = true, b = true }; };
template <>
struct Factors<Power> { enum { a = true, b = false }; };
template <>
struct Factors<Exponential> { enum { a = true, b = false }; };
template <>
struct Factors<Logarithm> { enum { a = true, b = false }; };

template <typename Op, typename T>
NEURON_INLINE bool is_constant(T a, T b) {
  return (Factors<Op>::a && a == T(0)) || (Factors<Op>::b && b == T(0));
}

// The form that computes f' from y = f(z). `exists` tells whether there is one.
template <typename Op>
struct OfValue { enum { exists = false }; };
template <>
struct OfValue<Sigmoid> { enum { exists = true }; using Type = SigmoidOfValue; };
template <>
struct OfValue<Tanh> { enum { exists = true }; using Type = TanhOfValue; };
template <>
struct OfValue<Exponential> { enum { exists = true }; using Type = ExponentialOfValue; };

// Whether a type is such a form: it reads y in x's place.
template <typename Op>
struct IsOfValue { enum { value = false }; };
template <>
struct IsOfValue<SigmoidOfValue> { enum { value = true }; };
template <>
struct IsOfValue<TanhOfValue> { enum { value = true }; };
template <>
struct IsOfValue<ExponentialOfValue> { enum { value = true }; };
template <>
struct IsOfValue<NaturalExponentialOfValue> { enum { value = true }; };

// The form for c = -1, Apple's sign for base e. `exists` tells whether it differs from the type itself.
template <typename Op>
struct Natural { enum { exists = false }; using Type = Op; };
template <>
struct Natural<Exponential> { enum { exists = true }; using Type = NaturalExponential; };
template <>
struct Natural<Logarithm> { enum { exists = true }; using Type = NaturalLogarithm; };
template <>
struct Natural<ExponentialOfValue> { enum { exists = true }; using Type = NaturalExponentialOfValue; };

// The form for 16-bit storage.
template <typename Op>
struct Coarse { using Type = Op; };
template <>
struct Coarse<Power> { using Type = PowerBy<CoarsePow>; };

}  // namespace NEURON_NAMESPACE

// X(raw value, struct) for each type, in the order of MPSCNNNeuronType. Every list of types derives from this one.
#define NEURON_TYPES(X)                                                                          \
  X(0, None) X(1, Relu) X(2, Linear) X(3, Sigmoid) X(4, HardSigmoid) X(5, Tanh) X(6, Absolute)   \
  X(7, Softplus) X(8, Softsign) X(9, Elu) X(10, Prelu) X(11, Relun) X(12, Power)                 \
  X(13, Exponential) X(14, Logarithm) X(15, Gelu)

#endif  // NEURON_MATH_H
