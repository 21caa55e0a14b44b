#!/bin/sh
# git's question is $1; the answers are in the environment of the one command that clones.
case $1 in
[Uu]sername*) printf '%s\n' "${FLY_GIT_USERNAME:-x-access-token}" ;;
*) printf '%s\n' "$FLY_GIT_TOKEN" ;;
esac
