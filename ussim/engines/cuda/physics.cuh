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
