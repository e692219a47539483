#!/usr/bin/env python3
"""Writes tests/data/topologies/*.xml: small machines in hwloc's XML that show one oddity each and belong to nobody.

    tests/data/make_topologies.py tests/data/topologies

  crossed.xml    GPU 0..3 beside the last L3s first; a display chip; an InfiniBand and a slow Ethernet adapter
  doubled.xml    GPUs with several OS devices each, their memory as NUMA nodes, a second kind of memory with the same cores
  switched.xml   four GPUs that are linked through ports of NVSwitches only
  tiers.xml      GPUs at every PCIe distance, none linked; one in front of the switch by address, the last by vendor number
"""

import os
import sys

DISPLAY, COMPUTE, ACCELERATOR, ETHERNET, INFINIBAND, BRIDGE = "0300", "0302", "1200", "0200", "0207", "0680"
NVIDIA, ASPEED, MELLANOX, INTEL = "10de:2000", "1a03:2000", "15b3:1021", "8086:1533"


class Machine:
    def __init__(self, name):
        self.name = name
        self.lines = []
        self.tail = []
        self.gp = 0

    def next_gp(self):
        self.gp += 1
        return self.gp

    @staticmethod
    def mask(threads):
        bits = sum(1 << t for t in threads)
        words = []
        while bits or not words:
            words.insert(0, f"0x{bits & 0xffffffff:08x}")
            bits >>= 32
        return ",".join(words)

    def open(self, kind, depth, threads=None, nodes=(0,), more=""):
        sets = ""
        if threads is not None:
            cpus, mems = self.mask(threads), self.mask(nodes)
            sets = f' cpuset="{cpus}" complete_cpuset="{cpus}"'
            if kind == "Machine":
                sets += f' allowed_cpuset="{cpus}"'
            sets += f' nodeset="{mems}" complete_nodeset="{mems}"'
            if kind == "Machine":
                sets += f' allowed_nodeset="{mems}"'
        gp = self.next_gp()
        self.lines.append(f'{"  " * depth}<object type="{kind}"{sets} gp_index="{gp}"{more}>')
        return gp

    def close(self, depth):
        self.lines.append(f'{"  " * depth}</object>')

    def leaf(self, kind, depth, threads=None, nodes=(0,), more="", infos=()):
        gp = self.open(kind, depth, threads, nodes, more)
        for key, value in infos:
            self.lines.append(f'{"  " * (depth + 1)}<info name="{key}" value="{value}"/>')
        self.close(depth)
        return gp

    def numa(self, depth, os_index, threads, mib, subtype=""):
        kind = f' subtype="{subtype}"' if subtype else ""
        self.leaf("NUMANode", depth, threads, [os_index], f' os_index="{os_index}"{kind} local_memory="{mib << 20}"')

    def l3(self, depth, cores, nodes, devices=None):
        """Cores are lists of the OS numbers of their hardware threads."""
        threads = [t for core in cores for t in core]
        self.open("L3Cache", depth, threads, nodes, ' cache_size="33554432" depth="3" cache_linesize="64" cache_type="0"')
        for core in cores:
            self.open("Core", depth + 1, core, nodes, f' os_index="{core[0]}"')
            for thread in core:
                self.leaf("PU", depth + 2, [thread], nodes, f' os_index="{thread}"')
            self.close(depth + 1)
        if devices:
            devices(depth + 1)
        self.close(depth)

    def host_bridge(self, depth, bus, last):
        self.open("Bridge", depth, more=f' bridge_type="0-1" depth="0" bridge_pci="0000:[{bus:02x}-{last:02x}]"')

    def bridge(self, depth, level, address, bus, last):
        self.open("Bridge", depth,
                  more=f' bridge_type="1-1" depth="{level}" bridge_pci="0000:[{bus:02x}-{last:02x}]"'
                       f' pci_busid="0000:{address}" pci_type="0604 [1000:c030] [0000:0000] 00" pci_link_speed="31.5"')

    def device(self, depth, address, pci_class, ids, os_devices=(), speed="31.5", subtype=""):
        """OS devices are (name, hwloc's type, infos)."""
        kind = f' subtype="{subtype}"' if subtype else ""
        gp = self.open("PCIDev", depth, more=f' pci_busid="0000:{address}"{kind} pci_type="{pci_class} [{ids}]'
                                             f' [0000:0000] 00" pci_link_speed="{speed}"')
        gps = [self.leaf("OSDev", depth + 1, more=f' name="{name}" osdev_type="{number}"', infos=infos)
               for name, number, infos in os_devices]
        self.close(depth)
        return [gp] + gps

    def matrix(self, name, objects, values):
        """Objects are (type, gp_index); values row by row."""
        flat = [v for row in values for v in row]
        indexes = "".join(f"{kind}:{gp} " for kind, gp in objects)
        numbers = "".join(f"{v} " for v in flat)
        self.tail += [f'  <distances2hetero nbobjs="{len(objects)}" kind="25" name="{name}">',
                      f'    <indexes length="{len(indexes)}">{indexes}</indexes>',
                      f'    <u64values length="{len(numbers)}">{numbers}</u64values>',
                      "  </distances2hetero>"]

    def write(self, folder):
        head = ['<?xml version="1.0" encoding="UTF-8"?>', '<!DOCTYPE topology SYSTEM "hwloc2.dtd">',
                '<topology version="2.0">']
        with open(os.path.join(folder, self.name), "w", encoding="ascii") as out:
            out.write("\n".join(head + self.lines + self.tail + ["</topology>"]) + "\n")


def cores(first, count, step):
    """`count` cores of two hardware threads; siblings are `step` apart."""
    return [[first + i, first + i + step] for i in range(count)]


def threads_of(some):
    return sorted(t for core in some for t in core)


def gpu(number):
    return (f"nvml{number}", 1, [("NVIDIAUUID", f"GPU-0000000{number}"), ("GPUModel", "Model T")])


def crossed():
    m = Machine("crossed.xml")
    all_cores = cores(0, 16, 16)
    m.open("Machine", 1, threads_of(all_cores), [0, 1], ' os_index="0"')
    m.open("Package", 2, threads_of(all_cores), [0, 1], ' os_index="0"')
    beside = {0: 2, 1: 3, 2: 0, 3: 1}  # L3 -> GPU
    gps = {}
    for node in (0, 1):
        part = all_cores[node * 8:node * 8 + 8]
        m.open("Group", 3, threads_of(part), [node], ' kind="1001" subkind="0"')
        m.numa(4, node, threads_of(part), 65536)
        for i in (0, 1):
            l3 = node * 2 + i
            bus = 0x40 + l3 * 0x10

            def devices(depth, l3=l3, bus=bus):
                m.host_bridge(depth, bus, bus + 2)
                m.bridge(depth + 1, 1, f"{bus:02x}:01.0", bus + 1, bus + 1)
                # Addresses follow the GPUs' numbers, not the cores.
                number = beside[l3]
                gps[number] = m.device(depth + 2, f"{0x41 + number * 0x10:02x}:00.0", COMPUTE, NVIDIA, [gpu(number)])[1]
                m.close(depth + 1)
                if l3 == 3:
                    m.bridge(depth + 1, 1, f"{bus:02x}:02.0", bus + 2, bus + 2)
                    m.device(depth + 2, f"{bus + 2:02x}:00.0", INFINIBAND, MELLANOX,
                             [("ib0", 2, []), ("mlx5_0", 3, [])])
                    m.close(depth + 1)
                m.close(depth)

            m.l3(4, part[i * 4:i * 4 + 4], [node], devices)
        if node == 0:
            m.host_bridge(4, 0x10, 0x12)
            m.device(5, "10:00.0", DISPLAY, ASPEED)
            m.device(5, "11:00.0", ETHERNET, INTEL, [("eno1", 2, [])], speed="0.25")
            m.close(4)
        m.close(3)
    m.close(2)
    m.close(1)
    return m


def doubled():
    m = Machine("doubled.xml")
    all_cores = cores(0, 8, 8)
    m.open("Machine", 1, threads_of(all_cores), range(6), ' os_index="0"')
    for package in (0, 1):
        part = all_cores[package * 4:package * 4 + 4]
        nodes = [package, package + 2, package + 4]
        m.open("Package", 2, threads_of(part), nodes, f' os_index="{package}"')
        m.numa(3, package, threads_of(part), 32768)
        m.numa(3, package + 2, threads_of(part), 8192, "HBM")
        m.numa(3, package + 4, threads_of(part), 81920, "GPUMemory")
        m.l3(3, part, nodes)
        bus = 0x10 + package * 0x10
        m.host_bridge(3, bus, bus + 1)
        m.bridge(4, 1, f"{bus:02x}:01.0", bus + 1, bus + 1)
        number = 1 - package
        m.device(5, f"{bus + 1:02x}:00.0", COMPUTE, NVIDIA,
                 [(f"opencl0d{package}", 5, []), (f"cuda{package}", 5, []), gpu(number), (f"card{package}", 1, [])])
        m.close(4)
        m.close(3)
        m.close(2)
    m.close(1)
    return m


def switched():
    m = Machine("switched.xml")
    all_cores = cores(0, 4, 4)
    m.open("Machine", 1, threads_of(all_cores), [0], ' os_index="0"')
    m.open("Package", 2, threads_of(all_cores), [0], ' os_index="0"')
    m.numa(3, 0, threads_of(all_cores), 32768)
    m.l3(3, all_cores, [0])
    gpus, ports = [], []
    m.host_bridge(3, 0x10, 0x17)
    for i in range(4):
        gpus.append(m.device(4, f"{0x10 + i:02x}:00.0", COMPUTE, NVIDIA, [gpu(i)])[1])
    for i in range(2):
        ports.append(m.device(4, f"{0x14 + i:02x}:00.0", BRIDGE, "10de:1ac2", subtype="NVSwitch")[0])
    m.close(3)
    m.close(2)
    m.close(1)
    # Each GPU has three links to each switch.
    rows = [[0] * 4 + [75000] * 2 for _ in range(4)] + [[75000] * 4 + [0] * 2 for _ in range(2)]
    m.matrix("NVLinkBandwidth", [("OSDev", g) for g in gpus] + [("PCIDev", p) for p in ports], rows)
    return m


def tiers():
    m = Machine("tiers.xml")
    all_cores = cores(0, 12, 12)
    m.open("Machine", 1, threads_of(all_cores), range(3), ' os_index="0"')
    rocm = lambda number: (f"rsmi{number}", 1, [("AMDUUID", f"{number:016x}"), ("GPUModel", "Model R")])
    for package, nodes in ((0, (0, 1)), (1, (2,))):
        part = all_cores[:8] if package == 0 else all_cores[8:]
        m.open("Package", 2, threads_of(part), nodes, f' os_index="{package}"')
        for node in nodes:
            here = all_cores[node * 4:node * 4 + 4]
            m.open("Group", 3, threads_of(here), [node], ' kind="1001" subkind="0"')
            m.numa(4, node, threads_of(here), 16384)
            m.l3(4, here, [node])
            if node == 0:
                # Two GPUs below one switch, a third below another of the same root port, a fourth beside that port.
                m.host_bridge(4, 0x10, 0x1f)
                m.bridge(5, 1, "10:01.0", 0x11, 0x1c)
                m.bridge(6, 2, "11:00.0", 0x12, 0x16)
                m.bridge(7, 3, "12:00.0", 0x13, 0x13)
                m.device(8, "13:00.0", ACCELERATOR, "1002:740f", [rocm(0)])
                m.close(7)
                m.bridge(7, 3, "12:01.0", 0x14, 0x14)
                m.device(8, "14:00.0", ACCELERATOR, "1002:740f", [rocm(1)])
                m.close(7)
                m.bridge(7, 3, "12:02.0", 0x15, 0x15)
                m.device(8, "15:00.0", INFINIBAND, MELLANOX, [("ib0", 2, []), ("mlx5_0", 3, [])])
                m.close(7)
                m.close(6)
                m.bridge(6, 2, "11:01.0", 0x17, 0x1a)
                m.bridge(7, 3, "17:00.0", 0x18, 0x18)
                m.bridge(8, 4, "18:00.0", 0x19, 0x19)
                m.device(9, "19:00.0", ACCELERATOR, "1002:740f", [rocm(2)])
                m.close(8)
                m.close(7)
                m.close(6)
                m.close(5)
                m.bridge(5, 1, "10:02.0", 0x1e, 0x1e)
                m.device(6, "1e:00.0", ACCELERATOR, "1002:740f", [rocm(3)])
                m.close(5)
                m.close(4)
                # A host bridge of its own.
                m.host_bridge(4, 0x20, 0x21)
                m.bridge(5, 1, "20:01.0", 0x21, 0x21)
                m.device(6, "21:00.0", ACCELERATOR, "1002:740f", [rocm(4)])
                m.close(5)
                m.close(4)
            else:
                bus, number = (0x30, 5) if node == 1 else (0x08, 6)
                m.host_bridge(4, bus, bus + 1)
                m.bridge(5, 1, f"{bus:02x}:01.0", bus + 1, bus + 1)
                m.device(6, f"{bus + 1:02x}:00.0", ACCELERATOR, "1002:740f", [rocm(number)])
                m.close(5)
                m.close(4)
            m.close(3)
        m.close(2)
    m.close(1)
    return m


def main():
    for machine in (crossed(), doubled(), switched(), tiers()):
        machine.write(sys.argv[1])


if __name__ == "__main__":
    main()
