# syntax=docker/dockerfile:1
# The image of Tiphys: one static binary under its names, on nothing, as user 999.
#
#   docker build -t tiphys .                                        builds the program, too
#   docker buildx build --file Dockerfile --platform linux/amd64,linux/arm64 \
#     --build-arg SOURCE=prebuilt -t tiphys dist                    packs what hack/image.sh put into dist/amd64 and dist/arm64
ARG SOURCE=build

FROM rust:1.95.0-alpine AS build
# The toolchain of the image, without the components that only developers need.
ENV RUSTUP_TOOLCHAIN=1.95.0
RUN apk add --no-cache bash build-base cmake linux-headers perl
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target hack/image.sh /out

FROM scratch AS prebuilt
ARG TARGETARCH
COPY ${TARGETARCH}/ /out/

FROM ${SOURCE} AS root

FROM scratch
COPY --from=root /out/ /
USER 999:999
# Started by another name the program takes that name's commands; argocd-agent's manifests say "principal" and "agent", as ours.
ENTRYPOINT ["/usr/local/bin/tiphys"]
