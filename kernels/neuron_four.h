// One element of a neuron, and four neighbouring elements, the unit of work of a GPU thread. neuron_gradient.metal
// includes this file after neuron_math.h. The tests compile it as CUDA and C++ with their own `metal_stdlib`.

#ifndef NEURON_FOUR_H
#define NEURON_FOUR_H

namespace neuron {

// ---- one element ------------------------------------------------------------------------------

// alpha, a, b, c of one batch entry, whether c stands for e, and whether f is constant.
struct Scalars {
  float alpha;
  Parameters<float> p;
  bool natural;
  bool is_constant;
};

template <typename Op>
NEURON_INLINE Scalars scalars_of(device const float* scalars) {
  Scalars s;
  s.alpha = scalars[0];
  s.p.a = scalars[1];
  s.p.b = scalars[2];
  s.p.c = scalars[3];
  s.natural = s.p.c == -1.0f;
  s.is_constant = is_constant<Op>(s.p.a, s.p.b);
  return s;
}

template <typename Op>
NEURON_INLINE float value(float z, float slope, Scalars s) {
  if (HasSlope<Op>::value) s.p.a = slope;
  if (Natural<Op>::exists && s.natural) return Natural<Op>::Type::value(z, s.p);
  return Op::value(z, s.p);
}

template <typename Op>
NEURON_INLINE float derivative(float z, float slope, Scalars s) {
  if (HasSlope<Op>::value) s.p.a = slope;
  if (Natural<Op>::exists && s.natural) return Natural<Op>::Type::derivative(z, s.p);
  return Op::derivative(z, s.p);
}

// The scalars of a Constant for f, and for f'.
template <typename Op>
NEURON_INLINE Scalars constant_value(Scalars s) {
  Scalars r = s;
  r.p.a = value<Op>(0.0f, 0.0f, s);
  r.p.b = value<Op>(NAN, 0.0f, s);
  return r;
}

template <typename Op>
NEURON_INLINE Scalars constant_derivative(Scalars s) {
  Scalars r = s;
  r.p.a = derivative<Op>(0.0f, 0.0f, s);
  r.p.b = derivative<Op>(NAN, 0.0f, s);
  return r;
}

// ---- memory -----------------------------------------------------------------------------------

struct Four {
  float v0, v1, v2, v3;
};

// With kWhole, reads four elements as one vector; the address must be aligned for it. Otherwise reads the first `left`
// elements and returns 0 for the others.
template <bool kWhole, typename S>
NEURON_INLINE Four load(device const S* p, ulong left) {
  Four r = {0.0f, 0.0f, 0.0f, 0.0f};
  if (kWhole) {
    metal::vec<S, 4> v = *reinterpret_cast<device const metal::vec<S, 4>*>(p);
    r.v0 = float(v.x);
    r.v1 = float(v.y);
    r.v2 = float(v.z);
    r.v3 = float(v.w);
  } else {
    if (left > 0) r.v0 = float(p[0]);
    if (left > 1) r.v1 = float(p[1]);
    if (left > 2) r.v2 = float(p[2]);
    if (left > 3) r.v3 = float(p[3]);
  }
  return r;
}

template <bool kWhole, typename S>
NEURON_INLINE void store(device S* p, ulong left, Four r) {
  if (kWhole) {
    metal::vec<S, 4> v;
    v.x = S(r.v0);
    v.y = S(r.v1);
    v.z = S(r.v2);
    v.w = S(r.v3);
    *reinterpret_cast<device metal::vec<S, 4>*>(p) = v;
  } else {
    if (left > 0) p[0] = S(r.v0);
    if (left > 1) p[1] = S(r.v1);
    if (left > 2) p[2] = S(r.v2);
    if (left > 3) p[3] = S(r.v3);
  }
}

// ---- four elements ----------------------------------------------------------------------------

// The arguments of f or f': z, or y for a form that reads y.
template <typename Op>
NEURON_INLINE Four arguments(Four x, Four bias, Scalars s) {
  if (IsOfValue<Op>::value) return x;
  Four z;
  z.v0 = s.alpha * x.v0 + bias.v0;
  z.v1 = s.alpha * x.v1 + bias.v1;
  z.v2 = s.alpha * x.v2 + bias.v2;
  z.v3 = s.alpha * x.v3 + bias.v3;
  return z;
}

template <typename Op>
NEURON_INLINE Four values(Four z, Four slope, Scalars s) {
  Four y;
  y.v0 = value<Op>(z.v0, slope.v0, s);
  y.v1 = value<Op>(z.v1, slope.v1, s);
  y.v2 = value<Op>(z.v2, slope.v2, s);
  y.v3 = value<Op>(z.v3, slope.v3, s);
  return y;
}

// f'(z) * gradient
template <typename Op>
NEURON_INLINE Four derivatives(Four z, Four slope, Four gradient, Scalars s) {
  Four d;
  d.v0 = derivative<Op>(z.v0, slope.v0, s) * gradient.v0;
  d.v1 = derivative<Op>(z.v1, slope.v1, s) * gradient.v1;
  d.v2 = derivative<Op>(z.v2, slope.v2, s) * gradient.v2;
  d.v3 = derivative<Op>(z.v3, slope.v3, s) * gradient.v3;
  return d;
}

NEURON_INLINE Four scaled(Four v, float by) {
  Four r = {v.v0 * by, v.v1 * by, v.v2 * by, v.v3 * by};
  return r;
}

NEURON_INLINE Four sum(Four a, Four b) {
  Four r = {a.v0 + b.v0, a.v1 + b.v1, a.v2 + b.v2, a.v3 + b.v3};
  return r;
}

// The terms of the slope gradient.
NEURON_INLINE Four slope_terms(Four z, Four gradient) {
  Four r = {Prelu::slope_derivative(z.v0) * gradient.v0, Prelu::slope_derivative(z.v1) * gradient.v1,
            Prelu::slope_derivative(z.v2) * gradient.v2, Prelu::slope_derivative(z.v3) * gradient.v3};
  return r;
}

NEURON_INLINE Four zeros() {
  Four r = {0.0f, 0.0f, 0.0f, 0.0f};
  return r;
}

}  // namespace neuron

#endif  // NEURON_FOUR_H
