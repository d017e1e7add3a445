// A port of NEZHA's embeddings to C++: it reads a golden bundle and writes its own arrays, as docs/bundles.md says it.
//     g++ -O2 -std=c++17 -o port port.cpp && ./port golden.safetensors theirs.safetensors
#include <cmath>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iostream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

using Floats = std::vector<float>;

// A safetensors file. Of JSON it needs the numbers after "data_offsets" and "shape" of one tensor.
struct File {
    std::string header, data;

    explicit File(const char* path) {
        std::ifstream in(path, std::ios::binary);
        std::string all{std::istreambuf_iterator<char>(in), {}};
        uint64_t length;
        if (all.size() < 8) throw std::runtime_error("no safetensors file");
        std::memcpy(&length, all.data(), 8);
        header = all.substr(8, length);
        data = all.substr(8 + length);
    }

    std::vector<size_t> numbers(const std::string& tensor, const std::string& key) const {
        size_t at = header.find("\"" + tensor + "\":{");
        if (at == std::string::npos) throw std::runtime_error("no " + tensor);
        at = header.find("\"" + key + "\":[", at) + key.size() + 4;
        std::vector<size_t> found;
        for (size_t end = header.find(']', at); at < end; at = header.find_first_of(",]", at) + 1)
            found.push_back(std::stoul(header.substr(at)));
        return found;
    }

    template <typename T>
    std::vector<T> read(const std::string& tensor) const {
        auto offsets = numbers(tensor, "data_offsets");
        std::vector<T> found((offsets[1] - offsets[0]) / sizeof(T));
        std::memcpy(found.data(), data.data() + offsets[0], found.size() * sizeof(T));
        return found;
    }

    Floats floats(const std::string& tensor) const {  // the bundle holds float64
        auto wide = read<double>(tensor);
        return Floats(wide.begin(), wide.end());
    }
};

int main(int count, char** arguments) {
    if (count != 3) return std::cerr << "usage: port GOLDEN THEIRS\n", 2;
    File golden(arguments[1]);
    auto ids = golden.read<int64_t>("inputs/input_ids"), types = golden.read<int64_t>("inputs/token_type_ids");
    auto shape = golden.numbers("inputs/input_ids", "shape");  // B, L
    Floats words = golden.floats("weights/embeddings.word_embeddings.weight");
    Floats of_types = golden.floats("weights/embeddings.token_type_embeddings.weight");
    Floats weight = golden.floats("weights/embeddings.LayerNorm.weight"), bias = golden.floats("weights/embeddings.LayerNorm.bias");
    const size_t features = weight.size();

    Floats sum(ids.size() * features), norm(sum.size());
    for (size_t token = 0; token < ids.size(); ++token) {
        float *x = &sum[token * features], *y = &norm[token * features], mean = 0, variance = 0;
        for (size_t i = 0; i < features; ++i) mean += x[i] = words[ids[token] * features + i] + of_types[types[token] * features + i];
        mean /= features;
        for (size_t i = 0; i < features; ++i) variance += (x[i] - mean) * (x[i] - mean);
        const float scale = 1 / std::sqrt(variance / features + 1e-12f);
        for (size_t i = 0; i < features; ++i) y[i] = (x[i] - mean) * scale * weight[i] + bias[i];
    }

    const size_t bytes = sum.size() * sizeof(float);
    const std::string entry = "{\"dtype\":\"F32\",\"shape\":[" + std::to_string(shape[0]) + "," + std::to_string(shape[1]) + "," +
                              std::to_string(features) + "],\"data_offsets\":[";
    const std::string header = "{\"embeddings.sum\":" + entry + "0," + std::to_string(bytes) + "]},\"embeddings.LayerNorm\":" +
                               entry + std::to_string(bytes) + "," + std::to_string(2 * bytes) + "]}}";
    const uint64_t length = header.size();
    std::ofstream out(arguments[2], std::ios::binary);
    out.write(reinterpret_cast<const char*>(&length), 8).write(header.data(), length);
    out.write(reinterpret_cast<const char*>(sum.data()), bytes).write(reinterpret_cast<const char*>(norm.data()), bytes);
    return out ? 0 : 1;
}
