// The passes over an activation between the convolutions of a block. `block.py` has the equations and their names,
// `kernels.py` compiles this file and calls it. There is no torch in it: buffers are `images x height x width x channels`
// without gaps, of one type T, and constants are one number a channel.
//
// Each pass is cut into pieces by its shape alone, and their sums are added in the order of the pieces, so that no
// number depends on the threads that share them. Within a strip (a row of windows) sums are in T, beyond it in double.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <vector>

#define VECTORIZED _Pragma("omp simd")

namespace {

using Int = std::int64_t;
using Fork = void (*)(void (*)(void*), void*, unsigned, unsigned);  // of OpenMP's runtime: GOMP_parallel

Fork fork_threads = nullptr;  // none: one thread does it all

const int OFF = 4;  // in place of a window's entry, 0 to 3: ReLU is off there, so that nothing flows back

struct Shape {
  Int images, height, width, channels;
  int threads;

  Int rows() const { return height / 2; }  // of windows
  Int columns() const { return width / 2; }
  Int strips() const { return images * ((height + 1) / 2); }  // a row of windows or what is left below them
  Int pixels() const { return images * height * width; }
  Int pooled() const { return images * rows() * columns(); }
  Int pieces() const { return std::clamp<Int>(pixels() * channels / 8192, 1, std::min<Int>(strips(), 64)); }

  // piece(index, first strip, end)
  template <class Piece> void split(Piece piece) const {
    struct Work { const Shape& shape; Piece& piece; std::atomic<Int> next; } work{*this, piece, 0};
    auto run = [](void* pointer) {
      auto& [shape, piece, next] = *static_cast<Work*>(pointer);
      const Int pieces = shape.pieces(), strips = shape.strips();
      for (Int i; (i = next++) < pieces;) piece(i, strips * i / pieces, strips * (i + 1) / pieces);
    };
    if (fork_threads && threads > 1 && pieces() >= 8) fork_threads(run, &work, unsigned(threads), 0);
    else run(&work);
  }

  // Sums over all strips: strip(index, sums) adds to `sums` numbers.
  template <class T, class Strip> std::vector<double> sums(Int count, Strip strip) const {
    std::vector<double> partial(pieces() * count);
    split([&](Int piece, Int first, Int end) {
      std::vector<T> of_strip(count);
      double* total = &partial[piece * count];
      for (Int k = first; k < end; k++) {
        std::fill(of_strip.begin(), of_strip.end(), T(0));
        strip(k, of_strip.data());
        for (Int i = 0; i < count; i++) total[i] += of_strip[i];
      }
    });
    for (Int i = count; i < Int(partial.size()); i++) partial[i % count] += partial[i];
    return partial;
  }

  // window(first of its pixels, pooled) for each window of a strip, and rest(pixel) for the pixels in none; both count numbers.
  template <class Window, class Rest> void windows(Int strip, Window window, Rest rest) const {
    const Int image = strip / ((height + 1) / 2), row = strip % ((height + 1) / 2);
    const Int top = image * height + 2 * row;
    if (row < rows())
      for (Int j = 0; j < columns(); j++)
        window((top * width + 2 * j) * channels, ((image * rows() + row) * columns() + j) * channels);
    for (Int y = 0; y < std::min<Int>(2, height - 2 * row); y++)
      for (Int x = row < rows() ? 2 * columns() : 0; x < width; x++) rest(((top + y) * width + x) * channels);
  }

  // pixel(pixel, pooled or -1, its entry) for each pixel of a strip, in order.
  template <class Pixel> void each(Int strip, Pixel pixel) const {
    const Int image = strip / ((height + 1) / 2), row = strip % ((height + 1) / 2);
    for (Int y = 0; y < std::min<Int>(2, height - 2 * row); y++) {
      const Int begin = (image * height + 2 * row + y) * width;
      for (Int x = 0; x < width; x++) {
        const bool inside = row < rows() && x < 2 * columns();
        const Int pooled = inside ? ((image * rows() + row) * columns() + x / 2) * channels : -1;
        pixel((begin + x) * channels, pooled, int(2 * y + x % 2));
      }
    }
  }
};

// y, scale, shift -> the output, the picked y, its entry in the window (as a T, so that widths are equal), mean and r.
template <class T>
void pool(Shape shape, const T* y, const T* scale, const T* shift, T* output, T* picked, T* entry, T* statistics) {
  const Int C = shape.channels, n = shape.pixels(), row = shape.width * C;
  // Sums are about the mean of some pixels, so that nothing cancels where the mean is far from zero.
  std::vector<T> origin_(C), sign_(C), slope_(C);
  const Int some = std::min<Int>(n, 64);
  for (Int i = 0; i < some; i++)
    for (Int c = 0; c < C; c++) origin_[c] += y[n * i / some * C + c] / T(some);
  for (Int c = 0; c < C; c++) sign_[c] = std::signbit(scale[c]) ? -1 : 1;
  const T *origin = origin_.data(), *sign = sign_.data();
  auto sums = shape.sums<T>(2 * C, [&](Int strip, T* of_strip) {
    T *__restrict first = of_strip, *__restrict second = of_strip + C;
    shape.windows(strip, [&](Int pixel, Int pooled) {
      const T *__restrict y0 = y + pixel, *__restrict y1 = y0 + C, *__restrict y2 = y0 + row, *__restrict y3 = y2 + C;
      T *__restrict p = picked + pooled, *__restrict e = entry + pooled;
      VECTORIZED for (Int c = 0; c < C; c++) {
        T s = sign[c], o = origin[c], v0 = y0[c], v1 = y1[c], v2 = y2[c], v3 = y3[c];
        T a0 = v0 * s, a1 = v1 * s, a2 = v2 * s, a3 = v3 * s;
        T upper = a1 > a0 ? a1 : a0, lower = a3 > a2 ? a3 : a2;
        T of_upper = a1 > a0 ? T(1) : T(0), of_lower = a3 > a2 ? T(3) : T(2);
        p[c] = (lower > upper ? lower : upper) * s;
        e[c] = lower > upper ? of_lower : of_upper;
        v0 -= o, v1 -= o, v2 -= o, v3 -= o;
        first[c] += (v0 + v1) + (v2 + v3);
        second[c] += (v0 * v0 + v1 * v1) + (v2 * v2 + v3 * v3);
      }
    }, [&](Int pixel) {
      VECTORIZED for (Int c = 0; c < C; c++) {
        T v = y[pixel + c] - origin[c];
        first[c] += v;
        second[c] += v * v;
      }
    });
  });
  T *mean = statistics, *r = statistics + C, *slope = slope_.data();
  for (Int c = 0; c < C; c++) {
    const double about = sums[c] / n, variance = sums[C + c] / n - about * about;
    mean[c] = T(origin[c] + about);
    r[c] = T(1 / std::sqrt((variance < 0 ? 0 : variance) + 1e-5));  // NaN stays NaN
    slope[c] = scale[c] * r[c];
  }
  shape.split([&](Int, Int first, Int end) {
    for (Int strip = first; strip < end; strip++)
      shape.windows(strip, [&](Int, Int pooled) {
        const T* __restrict p = picked + pooled;
        T *__restrict o = output + pooled, *__restrict e = entry + pooled;
        VECTORIZED for (Int c = 0; c < C; c++) {
          T z = (p[c] - mean[c]) * slope[c] + shift[c];
          o[c] = z <= 0 ? T(0) : z;
          e[c] = z <= 0 ? T(OFF) : e[c];
        }
      }, [](Int) {});
  });
}

// d, the output's gradient, and d_y or null -> g + d_y, and a, b.
template <class T>
void back(Shape shape, const T* y, const T* scale, const T* picked, const T* entry, const T* statistics, const T* d,
          const T* d_y, T* g, T* a, T* b) {
  const Int C = shape.channels, n = shape.pixels();
  const T *mean = statistics, *r = statistics + C;
  auto sums = shape.sums<T>(2 * C, [&](Int strip, T* of_strip) {
    T *__restrict with_h = of_strip, *__restrict alone = of_strip + C;
    shape.windows(strip, [&](Int, Int pooled) {
      const T *__restrict f = d + pooled, *__restrict p = picked + pooled, *__restrict i = entry + pooled;
      VECTORIZED for (Int c = 0; c < C; c++) {
        T e = i[c] == T(OFF) ? T(0) : f[c];
        with_h[c] += e * (p[c] - mean[c]);
        alone[c] += e;
      }
    }, [](Int) {});
  });
  std::vector<T> slope_(C), offset_(C), s_(C), nothing_(C, T(OFF));
  for (Int c = 0; c < C; c++) {
    const double s = double(scale[c]) * r[c], A = sums[c] * r[c], B = sums[C + c], slope = -s * r[c] * A / n;
    a[c] = T(A), b[c] = T(B), s_[c] = T(s), slope_[c] = T(slope), offset_[c] = T(-s * B / n - slope * mean[c]);
  }
  const T *slope = slope_.data(), *offset = offset_.data(), *s = s_.data(), *nothing = nothing_.data();
  shape.split([&](Int, Int first, Int end) {
    for (Int strip = first; strip < end; strip++)
      shape.each(strip, [&](Int pixel, Int pooled, int own) {
        const T *__restrict v = y + pixel, *__restrict i = pooled < 0 ? nothing : entry + pooled;
        const T *__restrict e = pooled < 0 ? nothing : d + pooled, *__restrict added = d_y ? d_y + pixel : nullptr;
        T* __restrict to = g + pixel;
        VECTORIZED for (Int c = 0; c < C; c++) {
          T back = e[c] * s[c];
          to[c] = v[c] * slope[c] + offset[c] + (i[c] == T(own) ? back : T(0)) + (added ? added[c] : T(0));
        }
      });
  });
}

// u, added to it u2 or null, and A, B or null -> what the second backward gives for the output's gradient, scale and y (in u).
template <class T>
void second(Shape shape, const T* y, const T* scale, const T* picked, const T* entry, const T* statistics, const T* d,
            const T* a, const T* b, const T* A, const T* B, const T* u2, T* u, T* d_d, T* d_scale) {
  const Int C = shape.channels, row = shape.width * C;
  const T *mean = statistics, *r = statistics + C;
  const double inverse_n = 1.0 / shape.pixels();
  auto sums = shape.sums<T>(3 * C, [&](Int strip, T* of_strip) {
    T *__restrict p = of_strip, *__restrict q = of_strip + C, *__restrict E = of_strip + 2 * C;
    shape.windows(strip, [&](Int pixel, Int pooled) {
      const T *__restrict y0 = y + pixel, *__restrict y1 = y0 + C, *__restrict y2 = y0 + row, *__restrict y3 = y2 + C;
      T *__restrict v0 = u + pixel, *__restrict v1 = v0 + C, *__restrict v2 = v0 + row, *__restrict v3 = v2 + C;
      const T *__restrict e = d + pooled, *__restrict i = entry + pooled;
      if (u2) {
        for (Int k = 0; k < 2; k++) {
          T* __restrict to = u + pixel + k * row; const T* __restrict from = u2 + pixel + k * row;
          VECTORIZED for (Int c = 0; c < 2 * C; c++) to[c] += from[c];
        }
      }
      VECTORIZED for (Int c = 0; c < C; c++) {
        T w0 = v0[c], w1 = v1[c], w2 = v2[c], w3 = v3[c], m = mean[c], k = i[c];
        T Pu = (k == T(0) ? w0 : T(0)) + (k == T(1) ? w1 : T(0)) + (k == T(2) ? w2 : T(0)) + (k == T(3) ? w3 : T(0));
        p[c] += (w0 + w1) + (w2 + w3);
        q[c] += (w0 * (y0[c] - m) + w1 * (y1[c] - m)) + (w2 * (y2[c] - m) + w3 * (y3[c] - m));
        E[c] += k == T(OFF) ? T(0) : Pu * e[c];
      }
    }, [&](Int pixel) {
      VECTORIZED for (Int c = 0; c < C; c++) {
        T w = u[pixel + c] += u2 ? u2[pixel + c] : T(0);
        p[c] += w;
        q[c] += w * (y[pixel + c] - mean[c]);
      }
    });
  });
  std::vector<T> slope_(C), offset_(C), rk_(C), rc_(C), s_(C), constant_(C), nothing_(C, T(OFF));
  for (Int c = 0; c < C; c++) {
    const double R = r[c], s = scale[c] * R, p = sums[c], q = sums[C + c] * R, t = -s * inverse_n;
    const double E = sums[2 * C + c] - (b[c] * p + a[c] * q) * inverse_n, rk = t * R * a[c];
    const double rc = ((A ? double(A[c]) : 0) + t * q) * R, slope = -(rk * q + rc * a[c] + s * R * E) * R * inverse_n;
    slope_[c] = T(slope), offset_[c] = T(-(rk * p + rc * b[c]) * inverse_n - slope * mean[c]);
    rk_[c] = T(rk), rc_[c] = T(rc), s_[c] = T(s), constant_[c] = T((B ? double(B[c]) : 0) + t * p);
    d_scale[c] = T(R * E);
  }
  const T *slope = slope_.data(), *offset = offset_.data(), *rk = rk_.data(), *rc = rc_.data(), *s = s_.data();
  const T *constant = constant_.data(), *nothing = nothing_.data();
  shape.split([&](Int, Int first, Int end) {
    for (Int strip = first; strip < end; strip++) {
      shape.windows(strip, [&](Int pixel, Int pooled) {
        const T *__restrict v0 = u + pixel, *__restrict v1 = v0 + C, *__restrict v2 = v0 + row, *__restrict v3 = v2 + C;
        const T *__restrict i = entry + pooled, *__restrict p = picked + pooled;
        T* __restrict to = d_d + pooled;
        VECTORIZED for (Int c = 0; c < C; c++) {
          T k = i[c], upper = k == T(0) ? v0[c] : v1[c], lower = k == T(2) ? v2[c] : v3[c];
          T value = (k < T(2) ? upper : lower) * s[c] + (p[c] - mean[c]) * rc[c] + constant[c];
          to[c] = k == T(OFF) ? T(0) : value;
        }
      }, [](Int) {});
      shape.each(strip, [&](Int pixel, Int pooled, int own) {
        const T *__restrict v = y + pixel, *__restrict i = pooled < 0 ? nothing : entry + pooled;
        const T* __restrict e = pooled < 0 ? nothing : d + pooled;
        T* __restrict w = u + pixel;
        VECTORIZED for (Int c = 0; c < C; c++) {
          T back = e[c] * rc[c];
          w[c] = v[c] * slope[c] + offset[c] + w[c] * rk[c] + (i[c] == T(own) ? back : T(0));
        }
      });
    }
  });
}

}  // namespace

extern "C" {

void use_threads_of(Fork fork) { fork_threads = fork; }

#define OF_TYPE(T)                                                                                                    \
  void pool_##T(Int n, Int h, Int w, Int c, int threads, const T* y, const T* scale, const T* shift, T* output,       \
                T* picked, T* entry, T* statistics) {                                                                 \
    pool<T>({n, h, w, c, threads}, y, scale, shift, output, picked, entry, statistics);                               \
  }                                                                                                                   \
  void back_##T(Int n, Int h, Int w, Int c, int threads, const T* y, const T* scale, const T* picked, const T* entry, \
                const T* statistics, const T* d, const T* d_y, T* g, T* a, T* b) {                                    \
    back<T>({n, h, w, c, threads}, y, scale, picked, entry, statistics, d, d_y, g, a, b);                             \
  }                                                                                                                   \
  void second_##T(Int n, Int h, Int w, Int c, int threads, const T* y, const T* scale, const T* picked,               \
                  const T* entry, const T* statistics, const T* d, const T* a, const T* b, const T* A, const T* B,    \
                  const T* u2, T* u, T* d_d, T* d_scale) {                                                            \
    second<T>({n, h, w, c, threads}, y, scale, picked, entry, statistics, d, a, b, A, B, u2, u, d_d, d_scale);        \
  }
OF_TYPE(float)
OF_TYPE(double)
}
