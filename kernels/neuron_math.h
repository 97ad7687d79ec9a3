// f and f' of every neuron type, one element at a time, after Apple's tables
// (MPSCNNNeuronType.h for f, MPSCNNNeuronGradient in MPSCNNNeuron.h for f').
//
// This file is compiled as C++, as CUDA and as Metal, and keeps to what all three allow: no pointers,
// no references, no inheritance, no double literals. It includes nothing. Before it, namespace
// NEURON_NAMESPACE must declare for each T in use (float; in C++ double and a vector of floats, whose comparisons
// are masks that its own select takes) the elementary functions
//   fabs, exp, exp_negative (exp for x <= 0), expm1 (used for x <= 0), log, pow, tanh, and coarse_pow where
//   results have 16 bits
// and for double, whose accuracy the polynomials below do not reach, also
//   log1p_unit, normal_tail, inverse_sqrt_2pi.

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

// ---- special functions ------------------------------------------------------------------------

// log(1 + x) on [0, 1]. With s = x / (2 + x) it is 2 atanh(s) = 2s + 2 s^3 p(s^2), p minimax to 4e-9 of the whole,
// and 2s is x - s x, which leaves all rounding but the last to a small term.
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

// Phi(-r) for r >= 0, given e = exp(-r^2 / 2). Phi(-r) / e is half the scaled complementary error
// function of r / sqrt(2); with t = 1 / (1 + 0.3125 r) it is t times a polynomial in t, minimax in
// relative error on 0 <= r <= 14.5, 1e-8. The tail keeps its relative accuracy where 1 + erf cancels.
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

template <typename T>
NEURON_INLINE T inverse_sqrt_2pi(T) { return 0.398942280f; }

// The logistic function 1 / (1 + e^-z).
template <typename T>
NEURON_INLINE T logistic(T z) {
  T e = exp_negative(-fabs(z));
  return select(z >= T(0), T(1), e) / (T(1) + e);
}

// Its derivative, e^z / (e^z + 1)^2, which is even in z.
template <typename T>
NEURON_INLINE T logistic_derivative(T z) {
  T e = exp_negative(-fabs(z));
  T r = T(1) / (T(1) + e);
  return e * r * r;
}

// ---- neuron types -----------------------------------------------------------------------------
// z is the argument alpha * x + bias. A NaN falls through every comparison of f to a branch that keeps it;
// f' takes the branch that the comparison takes.

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
  NEURON_INLINE T value(T z, Parameters<T> p) { return select(z >= T(0), z, p.a * z); }
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
  NEURON_INLINE T derivative(T z, Parameters<T>) { return logistic_derivative(z); }
};

// The slope is a where 0 <= a*z + b <= 1. Comparing a*z with the bounds less b keeps the edges where
// the parameters put them, whether or not the compiler fuses a*z + b into one rounding.
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
    return p.a * p.b * (T(4) * logistic_derivative(T(2) * (p.b * z)));
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
  NEURON_INLINE T value(T z, Parameters<T>) { return z / (T(1) + fabs(z)); }
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

// ReLU with its own a for each channel.
struct Prelu {
  template <typename T>
  NEURON_INLINE T value(T z, Parameters<T> p) { return Relu::value(z, p); }
  template <typename T>
  NEURON_INLINE T derivative(T z, Parameters<T> p) { return Relu::derivative(z, p); }
  // df/da, which the slope gradient sums over the rows.
  template <typename T>
  NEURON_INLINE T slope_derivative(T z) { return select(z >= T(0), T(0), z); }
};

struct Relun {
  template <typename T>
  NEURON_INLINE T value(T z, Parameters<T> p) {
    T r = select(z >= T(0), z, p.a * z);
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

// x^y to 2^-16 in float, more than a half or a bfloat can show, for less.
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

// f = z Phi(z) and f' = Phi(z) + z phi(z), with the normal distribution function Phi and its
// density phi. Both come from one exponential.
struct Gelu {
  template <typename T>
  NEURON_INLINE T value(T z, Parameters<T>) {
    T r = fabs(z);
    T tail = normal_tail(r, exp_negative(T(-0.5f) * r * r));
    return z * select(z >= T(0), T(1) - tail, tail);
  }
  template <typename T>
  NEURON_INLINE T derivative(T z, Parameters<T>) {
    T r = fabs(z);
    T e = exp_negative(T(-0.5f) * r * r);
    T tail = normal_tail(r, e);
    return select(z >= T(0), T(1) - tail, tail) + z * (e * inverse_sqrt_2pi(z));
  }
};

// f' as a function of y = f(z), for the types that have one. Where y was rounded to a bound of f, f' is 0.
struct SigmoidOfValue {
  template <typename T>
  NEURON_INLINE T derivative(T y, Parameters<T>) { return y * (T(1) - y); }
};

struct TanhOfValue {
  template <typename T>
  NEURON_INLINE T derivative(T y, Parameters<T> p) {
    T t = select(p.a == T(0), T(0), y / p.a);
    t = select(t > T(1), T(1), select(t < T(-1), T(-1), t));  // beyond a by y's rounding
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

// What a type becomes when its c is -1, Apple's sign for base e.
template <typename Op>
struct Natural { using Type = Op; };
template <>
struct Natural<Exponential> { using Type = NaturalExponential; };
template <>
struct Natural<Logarithm> { using Type = NaturalLogarithm; };
template <>
struct Natural<ExponentialOfValue> { using Type = NaturalExponentialOfValue; };

// What a type becomes where storage of 16 bits is all that sees its results.
template <typename Op>
struct Coarse { using Type = Op; };
template <>
struct Coarse<Power> { using Type = PowerBy<CoarsePow>; };

}  // namespace NEURON_NAMESPACE

// X(raw value, struct), in the order of MPSCNNNeuronType.
#define NEURON_TYPES(X)                                                                          \
  X(0, None) X(1, Relu) X(2, Linear) X(3, Sigmoid) X(4, HardSigmoid) X(5, Tanh) X(6, Absolute)   \
  X(7, Softplus) X(8, Softsign) X(9, Elu) X(10, Prelu) X(11, Relun) X(12, Power)                 \
  X(13, Exponential) X(14, Logarithm) X(15, Gelu)

// The same of those whose f' comes from y.
#define NEURON_TYPES_OF_VALUE(X) X(3, SigmoidOfValue) X(5, TanhOfValue) X(13, ExponentialOfValue)

#endif  // NEURON_MATH_H
