// What is between the convolutions of a block: `block.py` has the equations and their names, `kernels.py` compiles this
// file and calls it. There is no torch in it. Activations are images x height x width x channels without gaps, of one
// type T; constants are one number a channel.
//
// Every pass over an activation is cut into pieces by its shape alone, and what the pieces sum up is added in their
// order: no number depends on how many threads share them. Sums are of type T within a strip, and of doubles beyond it.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <vector>

#define VECTORIZED _Pragma("omp simd")

namespace {

using Int = std::int64_t;
using Fork = void (*)(void (*)(void*), void*, unsigned, unsigned);  // GOMP_parallel, of OpenMP's runtime

Fork fork_threads = nullptr;  // without it one thread does all

const int OFF = 4;  // where ReLU is off, in place of the entry 0 to 3 of a window that is picked

struct Strip {  // two rows of an image, or the last row of an odd height, which is in no window
  Int begin, end;  // offsets into an activation
  Int pooled, windows;  // offset into a pooled activation, and how many windows there are
};

struct Shape {
  Int images, height, width, channels;
  int threads;

  Int pixels() const { return images * height * width; }
  Int strips() const { return images * ((height + 1) / 2); }
  Int pieces() const { return std::clamp<Int>(pixels() * channels / 8192, 1, std::min<Int>(strips(), 64)); }

  Strip strip(Int index) const {
    const Int an_image = (height + 1) / 2, image = index / an_image, row = index % an_image;
    const Int begin = (image * height + 2 * row) * width * channels, size = width * channels;
    if (row == height / 2) return {begin, begin + size, 0, 0};
    return {begin, begin + 2 * size, (image * (height / 2) + row) * (width / 2) * channels, width / 2};
  }

  // piece(its index, strip, end of strips) for each piece, by all threads
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

  // visit(strip) for each
  template <class Visit> void each_strip(Visit visit) const {
    split([&](Int, Int first, Int end) { for (Int k = first; k < end; k++) visit(strip(k)); });
  }

  // The sums over all strips of the `count` numbers that visit(strip, numbers) adds to.
  template <class T, class Visit> std::vector<double> sums(Int count, Visit visit) const {
    std::vector<double> total(pieces() * count);
    split([&](Int piece, Int first, Int end) {
      std::vector<T> of_strip(count);
      for (Int k = first; k < end; k++) {
        std::fill(of_strip.begin(), of_strip.end(), T(0));
        visit(strip(k), of_strip.data());
        for (Int i = 0; i < count; i++) total[piece * count + i] += of_strip[i];
      }
    });
    for (Int i = count; i < Int(total.size()); i++) total[i % count] += total[i];
    return total;
  }

  // visit(first of its four pixels, pooled) for each window of a strip
  template <class Visit> void each_window(const Strip& s, Visit visit) const {
    for (Int j = 0; j < s.windows; j++) visit(s.begin + 2 * j * channels, s.pooled + j * channels);
  }

  // visit(pixel) for each pixel of a strip that is in no window
  template <class Visit> void each_other(const Strip& s, Visit visit) const {
    for (Int row = s.begin; row < s.end; row += width * channels)
      for (Int x = 2 * s.windows; x < width; x++) visit(row + x * channels);
  }

  // visit(pixel, pooled or -1, its entry in the window) for each pixel of a strip: one store a visit is fastest
  template <class Visit> void each_pixel(const Strip& s, Visit visit) const {
    for (Int row = s.begin; row < s.end; row += width * channels)
      for (Int x = 0; x < width; x++)
        visit(row + x * channels, x < 2 * s.windows ? s.pooled + x / 2 * channels : -1,
              (row > s.begin ? 2 : 0) + int(x % 2));
  }
};

// y, scale, shift -> the output, P y, the entry of each window (as a T: of one width all vectorises), and mean and r
template <class T>
void pool(Shape shape, const T* y, const T* scale, const T* shift, T* output, T* picked, T* entry, T* statistics) {
  const Int C = shape.channels, n = shape.pixels(), row = shape.width * C;
  std::vector<T> sign_(C), origin_(C), slope_(C);
  T *sign = sign_.data(), *origin = origin_.data(), *slope = slope_.data(), *mean = statistics, *r = statistics + C;
  for (Int c = 0; c < C; c++) sign[c] = std::signbit(scale[c]) ? -1 : 1;
  // Sums are about the mean of a few pixels, so that nothing cancels where the mean of all is far from zero.
  const Int few = std::min<Int>(n, 64);
  for (Int i = 0; i < few; i++)
    for (Int c = 0; c < C; c++) origin[c] += y[n * i / few * C + c] / T(few);

  auto sums = shape.template sums<T>(2 * C, [&](const Strip& strip, T* of_strip) {
    T *__restrict first = of_strip, *__restrict second = of_strip + C;
    shape.each_window(strip, [&](Int pixel, Int pooled) {
      const T *__restrict y0 = y + pixel, *__restrict y1 = y0 + C, *__restrict y2 = y0 + row, *__restrict y3 = y2 + C;
      T *__restrict p = picked + pooled, *__restrict i = entry + pooled;
      VECTORIZED for (Int c = 0; c < C; c++) {
        T s = sign[c], o = origin[c], v0 = y0[c], v1 = y1[c], v2 = y2[c], v3 = y3[c];
        T z0 = v0 * s, z1 = v1 * s, z2 = v2 * s, z3 = v3 * s;  // of several largest the first is picked
        T above = z1 > z0 ? z1 : z0, below = z3 > z2 ? z3 : z2;
        T of_above = z1 > z0 ? T(1) : T(0), of_below = z3 > z2 ? T(3) : T(2);
        p[c] = (below > above ? below : above) * s;
        i[c] = below > above ? of_below : of_above;
        v0 -= o, v1 -= o, v2 -= o, v3 -= o;
        first[c] += (v0 + v1) + (v2 + v3);
        second[c] += (v0 * v0 + v1 * v1) + (v2 * v2 + v3 * v3);
      }
    });
    shape.each_other(strip, [&](Int pixel) {
      VECTORIZED for (Int c = 0; c < C; c++) {
        T v = y[pixel + c] - origin[c];
        first[c] += v;
        second[c] += v * v;
      }
    });
  });
  for (Int c = 0; c < C; c++) {
    const double about = sums[c] / n, variance = sums[C + c] / n - about * about;
    mean[c] = T(origin[c] + about);
    r[c] = T(1 / std::sqrt((variance < 0 ? 0 : variance) + 1e-5));  // what is not finite stays so
    slope[c] = scale[c] * r[c];
  }
  shape.each_strip([&](const Strip& strip) {
    shape.each_window(strip, [&](Int, Int pooled) {
      const T* __restrict p = picked + pooled;
      T *__restrict to = output + pooled, *__restrict i = entry + pooled;
      VECTORIZED for (Int c = 0; c < C; c++) {
        T z = (p[c] - mean[c]) * slope[c] + shift[c];
        to[c] = z <= 0 ? T(0) : z;
        i[c] = z <= 0 ? T(OFF) : i[c];
      }
    });
  });
}

// d, the gradient of the output, and d_y or null -> g + d_y, a, b
template <class T>
void back(Shape shape, const T* y, const T* scale, const T* picked, const T* entry, const T* statistics, const T* d,
          const T* d_y, T* g, T* a, T* b) {
  const Int C = shape.channels, n = shape.pixels();
  const T *mean = statistics, *r = statistics + C;
  auto sums = shape.template sums<T>(2 * C, [&](const Strip& strip, T* of_strip) {
    T *__restrict with_h = of_strip, *__restrict alone = of_strip + C;
    shape.each_window(strip, [&](Int, Int pooled) {
      const T *__restrict f = d + pooled, *__restrict p = picked + pooled, *__restrict i = entry + pooled;
      VECTORIZED for (Int c = 0; c < C; c++) {
        T e = i[c] == T(OFF) ? T(0) : f[c];
        with_h[c] += e * (p[c] - mean[c]);
        alone[c] += e;
      }
    });
  });
  std::vector<T> slope_(C), offset_(C), s_(C), none_(C, T(OFF));
  T *slope = slope_.data(), *offset = offset_.data(), *s = s_.data(), *none = none_.data();
  for (Int c = 0; c < C; c++) {
    const double sr = double(scale[c]) * r[c], A = sums[c] * r[c], B = sums[C + c], of_y = -sr * r[c] * A / n;
    a[c] = T(A), b[c] = T(B);
    s[c] = T(sr), slope[c] = T(of_y), offset[c] = T(-sr * B / n - of_y * mean[c]);
  }
  shape.each_strip([&](const Strip& strip) {
    shape.each_pixel(strip, [&](Int pixel, Int pooled, int own) {
      const T *__restrict v = y + pixel, *__restrict more = d_y ? d_y + pixel : nullptr;
      const T *__restrict e = pooled < 0 ? none : d + pooled, *__restrict i = pooled < 0 ? none : entry + pooled;
      T* __restrict to = g + pixel;
      VECTORIZED for (Int c = 0; c < C; c++) {
        T put = e[c] * s[c];
        to[c] = v[c] * slope[c] + offset[c] + (i[c] == T(own) ? put : T(0)) + (more ? more[c] : T(0));
      }
    });
  });
}

// u, and what is to be added to it or null, A and B or null -> the derivatives in d and scale, and in u that in y
template <class T>
void second(Shape shape, const T* y, const T* scale, const T* picked, const T* entry, const T* statistics, const T* d,
            const T* a, const T* b, const T* A, const T* B, const T* more, T* u, T* d_d, T* d_scale) {
  const Int C = shape.channels, row = shape.width * C;
  const T *mean = statistics, *r = statistics + C;
  auto sums = shape.template sums<T>(3 * C, [&](const Strip& strip, T* of_strip) {
    T *__restrict p = of_strip, *__restrict q = of_strip + C, *__restrict E = of_strip + 2 * C;
    if (more)
      VECTORIZED for (Int o = strip.begin; o < strip.end; o++) u[o] += more[o];
    shape.each_window(strip, [&](Int pixel, Int pooled) {
      const T *__restrict y0 = y + pixel, *__restrict y1 = y0 + C, *__restrict y2 = y0 + row, *__restrict y3 = y2 + C;
      const T *__restrict u0 = u + pixel, *__restrict u1 = u0 + C, *__restrict u2 = u0 + row, *__restrict u3 = u2 + C;
      const T *__restrict e = d + pooled, *__restrict i = entry + pooled;
      VECTORIZED for (Int c = 0; c < C; c++) {
        T v0 = u0[c], v1 = u1[c], v2 = u2[c], v3 = u3[c], m = mean[c], k = i[c];
        T above = k == T(0) ? v0 : v1, below = k == T(2) ? v2 : v3, with_e = (k < T(2) ? above : below) * e[c];
        p[c] += (v0 + v1) + (v2 + v3);
        q[c] += (v0 * (y0[c] - m) + v1 * (y1[c] - m)) + (v2 * (y2[c] - m) + v3 * (y3[c] - m));
        E[c] += k == T(OFF) ? T(0) : with_e;
      }
    });
    shape.each_other(strip, [&](Int pixel) {
      VECTORIZED for (Int c = 0; c < C; c++) {
        p[c] += u[pixel + c];
        q[c] += u[pixel + c] * (y[pixel + c] - mean[c]);
      }
    });
  });
  std::vector<T> slope_(C), offset_(C), rk_(C), rc_(C), s_(C), constant_(C), none_(C, T(OFF));
  T *slope = slope_.data(), *offset = offset_.data(), *rk = rk_.data(), *rc = rc_.data(), *s = s_.data();
  T *constant = constant_.data(), *none = none_.data();
  for (Int c = 0; c < C; c++) {
    const double R = r[c], sr = scale[c] * R, n = double(shape.pixels()), p = sums[c], q = sums[C + c] * R;
    const double E = sums[2 * C + c] - (b[c] * p + a[c] * q) / n, t = -sr / n, k = t * R * a[c];
    const double h = ((A ? double(A[c]) : 0) + t * q) * R, of_y = -(k * q + h * a[c] + sr * R * E) * R / n;
    slope[c] = T(of_y), offset[c] = T(-(k * p + h * b[c]) / n - of_y * mean[c]);
    rk[c] = T(k), rc[c] = T(h), s[c] = T(sr), constant[c] = T((B ? double(B[c]) : 0) + t * p);
    d_scale[c] = T(R * E);
  }
  shape.each_strip([&](const Strip& strip) {
    shape.each_window(strip, [&](Int pixel, Int pooled) {
      const T *__restrict u0 = u + pixel, *__restrict u1 = u0 + C, *__restrict u2 = u0 + row, *__restrict u3 = u2 + C;
      const T *__restrict p = picked + pooled, *__restrict i = entry + pooled;
      T* __restrict to = d_d + pooled;
      VECTORIZED for (Int c = 0; c < C; c++) {
        T v0 = u0[c], v1 = u1[c], v2 = u2[c], v3 = u3[c], k = i[c];
        T above = k == T(0) ? v0 : v1, below = k == T(2) ? v2 : v3;
        T value = (k < T(2) ? above : below) * s[c] + (p[c] - mean[c]) * rc[c] + constant[c];
        to[c] = k == T(OFF) ? T(0) : value;
      }
    });
    shape.each_pixel(strip, [&](Int pixel, Int pooled, int own) {
      const T* __restrict v = y + pixel;
      const T *__restrict e = pooled < 0 ? none : d + pooled, *__restrict i = pooled < 0 ? none : entry + pooled;
      T* __restrict w = u + pixel;
      VECTORIZED for (Int c = 0; c < C; c++) {
        T put = e[c] * rc[c];
        w[c] = v[c] * slope[c] + offset[c] + w[c] * rk[c] + (i[c] == T(own) ? put : T(0));
      }
    });
  });
}

}  // namespace

extern "C" {

void use_threads_of(Fork fork) { fork_threads = fork; }

#define OF_TYPE(T)                                                                                                     \
  void pool_##T(Int n, Int h, Int w, Int c, int threads, const T* y, const T* scale, const T* shift, T* output,        \
                T* picked, T* entry, T* statistics) {                                                                  \
    pool<T>({n, h, w, c, threads}, y, scale, shift, output, picked, entry, statistics);                                \
  }                                                                                                                    \
  void back_##T(Int n, Int h, Int w, Int c, int threads, const T* y, const T* scale, const T* picked, const T* entry,  \
                const T* statistics, const T* d, const T* d_y, T* g, T* a, T* b) {                                     \
    back<T>({n, h, w, c, threads}, y, scale, picked, entry, statistics, d, d_y, g, a, b);                              \
  }                                                                                                                    \
  void second_##T(Int n, Int h, Int w, Int c, int threads, const T* y, const T* scale, const T* picked,                \
                  const T* entry, const T* statistics, const T* d, const T* a, const T* b, const T* A, const T* B,     \
                  const T* more, T* u, T* d_d, T* d_scale) {                                                           \
    second<T>({n, h, w, c, threads}, y, scale, picked, entry, statistics, d, a, b, A, B, more, u, d_d, d_scale);       \
  }
OF_TYPE(float)
OF_TYPE(double)
}
