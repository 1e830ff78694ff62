# kvsfs in a container: docs/INSTALL.md tells how to run it, compose.yaml has a server and a mount.
# BASE is any Debian or Ubuntu with Python 3.11 or newer.
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS build
RUN apt-get update -q \
    && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends \
        gcc libc6-dev libfuse3-dev pkg-config python3-dev python3-venv
COPY . /src
# As in [records,keyring], for `kvsfs serve --records` and the desktop's keyring.
ARG EXTRAS=
# A secret, for who needs a proxy or a certificate of their own: --secret id=pip.conf,src=FILE
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    python3 -m venv /opt/kvsfs \
    && /opt/kvsfs/bin/pip install -q --no-cache-dir -c /src/constraints.txt "/src${EXTRAS}" \
    && /opt/kvsfs/bin/pip uninstall -q -y setuptools pip

FROM ${BASE}
# fuse3 has fusermount3, by which a user who is not root mounts; user_allow_other, because whoever reads the mount is
# outside the container, and another user. fusermount3 unmounts nothing without mtab, which not every engine brings along.
RUN apt-get update -q \
    && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends fuse3 python3-minimal libpython3-stdlib \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin \
    && echo user_allow_other >> /etc/fuse.conf \
    && { [ -e /etc/mtab ] || ln -s /proc/self/mounts /etc/mtab; }
COPY --from=build /opt/kvsfs /opt/kvsfs
# The first user of most machines: what is bound into the container for the mount is then theirs already.
ARG UID=1000
# What is not uploaded yet lies below /var/cache/kvsfs, the records of `kvsfs serve` below /var/lib/kvsfs.
RUN useradd --uid "${UID}" --create-home kvsfs \
    && install -d -m 700 -o kvsfs /var/cache/kvsfs /var/lib/kvsfs \
    && install -d -o kvsfs /mnt/store
ENV PATH=/opt/kvsfs/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    XDG_CACHE_HOME=/var/cache
USER kvsfs
VOLUME ["/var/cache/kvsfs", "/var/lib/kvsfs"]
EXPOSE 8765
# Of a mount, which answers by itself while its loop turns. A server's is in compose.yaml.
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s CMD ["kvsfs", "status", "/mnt/store"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["kvsfs"]
CMD ["--help"]
