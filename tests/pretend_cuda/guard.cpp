// What autograd asks a CUDA machine for: a device guard with one device and one stream, on which nothing happens, and a
// primary context that exists.
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

#include <cstring>

using namespace c10;

struct PretendGuard final : public impl::DeviceGuardImplInterface {
  DeviceType type() const override { return DeviceType::CUDA; }
  Device exchangeDevice(Device) const override { return Device(DeviceType::CUDA, 0); }
  Device getDevice() const override { return Device(DeviceType::CUDA, 0); }
  void setDevice(Device) const override {}
  void uncheckedSetDevice(Device) const noexcept override {}
  Stream getStream(Device) const override { return Stream(Stream::DEFAULT, Device(DeviceType::CUDA, 0)); }
  Stream getNewStream(Device device, int) const override { return getStream(device); }
  Stream getDefaultStream(Device device) const override { return getStream(device); }
  Stream exchangeStream(Stream stream) const override { return stream; }
  DeviceIndex deviceCount() const noexcept override { return 1; }
};

static bool always(void*, DeviceIndex) { return true; }

extern "C" void pretend_cuda_install() {
  impl::device_guard_impl_registry[static_cast<size_t>(DeviceType::CUDA)].store(new PretendGuard());
  // The hooks of torch's CUDA build ask the driver whether a context exists, and no subclass of theirs can be made. So
  // their table of virtual functions is copied, and this one entry of it replaced (Itanium ABI: the pointer to a virtual
  // member holds the entry's offset plus one; two words precede the table).
  auto* hooks = const_cast<at::CUDAHooksInterface*>(&at::detail::getCUDAHooks());
  bool (at::AcceleratorHooksInterface::*member)(DeviceIndex) const = &at::AcceleratorHooksInterface::hasPrimaryContext;
  size_t parts[2];
  std::memcpy(parts, &member, sizeof(parts));
  const size_t entry = (parts[0] - 1) / sizeof(void*);
  constexpr size_t kBefore = 2, kEntries = 200;
  void** table = *reinterpret_cast<void***>(hooks);
  void** copy = new void*[kBefore + kEntries];
  std::memcpy(copy, table - kBefore, (kBefore + kEntries) * sizeof(void*));
  copy[kBefore + entry] = reinterpret_cast<void*>(&always);
  *reinterpret_cast<void***>(hooks) = copy + kBefore;
}
