// A picture at the top left of a network frame, shrunk as cv2.INTER_LINEAR does it: weights of 11
// bits, sums in integers. One thread makes one pixel of the frame. Strides are in bytes; they say
// whether the picture is BGR, RGB, grey (0 between channels), planar, padded or a part of another.

__device__ static float weigh(int index, double step, int* first) {
    float position = (float)((index + 0.5) * step - 0.5);
    float whole = floorf(position);
    *first = (int)whole;
    return position - whole;
}

__device__ static int clip(int index, int size) {
    return index < 0 ? 0 : index < size ? index : size - 1;
}

extern "C" __global__ void letterbox(
    const unsigned char* picture, long long row_stride, long long pixel_stride,
    long long channel_stride, int width, int height, double step_x, double step_y, int columns,
    int rows, unsigned char* frame, int frame_width, int frame_height, unsigned int pad_value) {
    int x = blockIdx.x * blockDim.x + threadIdx.x;
    int y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= frame_width || y >= frame_height) return;
    unsigned char* pixel = frame + 3 * ((long long)y * frame_width + x);
    if (x >= columns || y >= rows) {
        for (int channel = 0; channel < 3; ++channel) pixel[channel] = pad_value >> 8 * channel;
        return;
    }
    int left, top;
    float right_share = weigh(x, step_x, &left);
    float lower_share = weigh(y, step_y, &top);
    if (left < 0 || left >= width - 1) right_share = 0.0f;
    int right_weight = (int)rintf(right_share * 2048.0f);
    int left_weight = (int)rintf((1.0f - right_share) * 2048.0f);
    int lower_weight = (int)rintf(lower_share * 2048.0f);
    int upper_weight = (int)rintf((1.0f - lower_share) * 2048.0f);
    left = clip(left, width);
    int right = clip(left + 1, width);
    const unsigned char* upper = picture + clip(top, height) * row_stride;
    const unsigned char* lower = picture + clip(top + 1, height) * row_stride;
    for (int channel = 0; channel < 3; ++channel) {
        long long at_left = left * pixel_stride + channel * channel_stride;
        long long at_right = right * pixel_stride + channel * channel_stride;
        int above = upper[at_left] * left_weight + upper[at_right] * right_weight;
        int below = lower[at_left] * left_weight + lower[at_right] * right_weight;
        int sum = (upper_weight * (above >> 4) >> 16) + (lower_weight * (below >> 4) >> 16);
        pixel[channel] = (sum + 2) >> 2;
    }
}
