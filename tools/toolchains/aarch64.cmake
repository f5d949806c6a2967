# SPDX-License-Identifier: Apache-2.0
# Cross-compiles for 64-bit ARM with Debian's g++-aarch64-linux-gnu and runs what it built under QEMU's user emulation.
# NVFP4_AARCH64_ROOT names a folder with the dependencies (usr/include, usr/lib/aarch64-linux-gnu); tools/matrix_aarch64
# makes one.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_LIBRARY_ARCHITECTURE aarch64-linux-gnu)

set(NVFP4_AARCH64_ROOT "$ENV{NVFP4_AARCH64_ROOT}" CACHE PATH "Folder with the dependencies for aarch64")
list(APPEND CMAKE_TRY_COMPILE_PLATFORM_VARIABLES NVFP4_AARCH64_ROOT)
set(CMAKE_FIND_ROOT_PATH ${NVFP4_AARCH64_ROOT} /usr/aarch64-linux-gnu)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
set(OPENSSL_USE_STATIC_LIBS ON)
set(CMAKE_CXX_FLAGS_INIT "-isystem ${NVFP4_AARCH64_ROOT}/usr/include/aarch64-linux-gnu") # opensslconf.h

set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64-static -L /usr/aarch64-linux-gnu)
