// The formulas of ussim/physics.py that the kernels need: same names, same order, in float32. `physics.py` is the
// definition (sources and equations are named there), this file its checked transcription.
//
// The kernels are compiled without contraction (`--fmad=false`): a fused multiply-add is where `fma` is written and nowhere
// else, so that a result does not depend on what else was compiled with it, and is the one that the tests see on the host.
//
// sincospif would be exact, at five times the cost: __sincosf on |angle| <= pi is within 4e-7, a phase error far below
// that of float32 delays. Amplitudes are divided by __fdividef and rsqrtf, within 2 units of the last place (2.4e-7); what
// becomes a delay by `quotient`, within one.

#pragma once

#define GRAZING 1.1921e-7f
#define TWO_PI 6.28318530718f

// numerator / denominator, both ordinary numbers: an approximate reciprocal and one correction.
__device__ inline float quotient(float numerator, float denominator) {
    const float inverse = __fdividef(1.0f, denominator), first = numerator * inverse;
    return fmaf(fmaf(-first, denominator, numerator), inverse, first);
}

// --- phases ------------------------------------------------------------------------------------------------------------

// exp(2πi cycles).
__device__ inline float2 rotation(float cycles) {
    float sine, cosine;
    __sincosf(TWO_PI * (cycles - rintf(cycles)), &sine, &cosine);
    return make_float2(cosine, sine);
}

// --- one sub-element and one point -------------------------------------------------------------------------------------

// Sine and cosine of the angle between an element's normal and a point at (dx, dz) from it, `distance` away.
__device__ inline float2 incidence(float dx, float dz, float distance, float sin_element, float cos_element) {
    const float inverse = __fdividef(1.0f, distance), sine = dx * inverse, cosine = fabsf(dz) * inverse;
    return make_float2(sine * cos_element - cosine * sin_element, cosine * cos_element + sine * sin_element);
}

// Obliquity factor of an element in a baffle: 0 soft, infinity rigid, otherwise the impedance ratio.
__device__ inline float obliquity(float cos_theta, float baffle) {
    if (cos_theta <= 0.0f) return GRAZING;
    if (baffle == 0.0f) return cos_theta;
    if (isinf(baffle)) return 1.0f;
    return __fdividef(cos_theta, cos_theta + baffle);
}

// sinc(k L/2 sin θ) of a line source of length L; `half_width_wavenumber` is k L / 2.
__device__ inline float directivity(float sin_theta, float half_width_wavenumber) {
    const float angle = half_width_wavenumber * sin_theta;
    if (fabsf(angle) < 0.5f) {  // the quotient would amplify the error of the sine
        const float square = angle * angle;
        return 1.0f - square * (1.0f / 6.0f) * (1.0f - square * (1.0f / 20.0f) * (1.0f - square * (1.0f / 42.0f)));
    }
    return __fdividef(rotation(angle * (1.0f / TWO_PI)).y, angle);
}

// --- elevation ---------------------------------------------------------------------------------------------------------

// A function of the wavenumber at one of them, and its derivative.
struct Node {
    float2 value, slope;
};

// Adds one Gaussian, A sqrt(q) exp(-V² q) with q = 1 / (B + iW), to a node; W = bend k, and V² (`square`) goes as k².
__device__ inline void add_gaussian(
    Node& node, float a_re, float a_im, float b_re, float b_im, float angle, float bend, float square, float twice
) {
    const float turned = angle + b_im, length_square = fmaf(turned, turned, b_re * b_re);
    const float inverse = rsqrtf(length_square), size = inverse * inverse;
    const float2 q = make_float2(size * b_re, -size * turned);
    const float half = 0.5f * fmaf(length_square, inverse, b_re), over = rsqrtf(half) * inverse;
    const float2 root = make_float2(half * over, -0.5f * turned * over);
    const float v_re = square * q.x, v_im = square * q.y;
    const float damping = exp2f(-1.44269504f * v_re);
    const float2 turn = rotation((-1.0f / TWO_PI) * v_im);
    const float2 gaussian = make_float2(damping * fmaf(root.x, turn.x, -root.y * turn.y),
                                        damping * fmaf(root.x, turn.y, root.y * turn.x));
    const float2 value = make_float2(fmaf(gaussian.x, a_re, -gaussian.y * a_im), fmaf(gaussian.x, a_im, gaussian.y * a_re));
    const float2 inner = make_float2(-fmaf(bend, v_im, twice), bend * (v_re - 0.5f));
    const float2 rate = make_float2(fmaf(q.x, inner.x, -q.y * inner.y), fmaf(q.x, inner.y, q.y * inner.x));
    node.value = make_float2(node.value.x + value.x, node.value.y + value.y);
    node.slope = make_float2(node.slope.x + fmaf(value.x, rate.x, -value.y * rate.y),
                             node.slope.y + fmaf(value.x, rate.y, value.y * rate.x));
}

// The beam in elevation of an element's height and lens, and its slope per `length` of wavenumber (rad/m).
__device__ inline Node elevation_beam(
    float wavenumber, float length, float inverse_distance, float square_y, float height, float vergence
) {
    const float bend = (vergence - inverse_distance) * (0.5f * height * height), angle = bend * wavenumber;
    const float path = inverse_distance * (0.5f * height) * wavenumber;
    const float square = square_y * path * path, twice = 2.0f * __fdividef(square, wavenumber);
    Node node;
    node.value = node.slope = make_float2(0.0f, 0.0f);
    add_gaussian(node, 0.187f, 0.275f, 4.558f, -25.59f, angle, bend, square, twice);
    add_gaussian(node, 0.288f, -1.954f, 8.598f, -7.924f, angle, bend, square, twice);
    add_gaussian(node, 0.187f, -0.275f, 4.558f, 25.59f, angle, bend, square, twice);
    add_gaussian(node, 0.288f, 1.954f, 8.598f, 7.924f, angle, bend, square, twice);
    const float scale = 1.77245385f * height;  // sqrt(pi)
    node.value = make_float2(scale * node.value.x, scale * node.value.y);
    node.slope = make_float2(scale * length * node.slope.x, scale * length * node.slope.y);
    return node;
}

// --- more phases -------------------------------------------------------------------------------------------------------

// Cycles, less whole ones, of bin / n cycles per sample over `whole` + `part` samples: exact while |bin whole| < 2^24.
__device__ inline float bin_cycles(int bin, int n, float inverse_n, float whole, float part) {
    const float product = (float)bin * whole;
    const float rest = fmaf(-rintf(product * inverse_n), (float)n, product);
    return (rest + (float)bin * part) * inverse_n;
}

__device__ inline float2 multiply(float2 a, float2 b) {
    return make_float2(fmaf(a.x, b.x, -(a.y * b.y)), fmaf(a.x, b.y, a.y * b.x));
}
