// Command hasite-controlplane holds a Kubernetes control plane and its clients in one file:
// etcd, kube-apiserver, kube-controller-manager, kubectl and helm, each a sub-command.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	_ "time/tzdata"

	"github.com/spf13/cobra"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	kubectl "k8s.io/kubectl/pkg/cmd"
	kubectlutil "k8s.io/kubectl/pkg/cmd/util"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
)

func main() {
	// A link named after a sub-command behaves like it, so that `kubectl` can be put on a PATH.
	if name := filepath.Base(os.Args[0]); run(name) {
		return
	}
	if len(os.Args) > 1 {
		os.Args = os.Args[1:]
		if run(os.Args[0]) {
			return
		}
	}
	fmt.Fprintln(os.Stderr, "usage: hasite-controlplane etcd|kube-apiserver|kube-controller-manager|kubectl|helm [flags]")
	os.Exit(2)
}

// run executes the sub-command, with os.Args as its command line, and says whether there is one of that name.
func run(name string) bool {
	switch name {
	case "etcd":
		exit(newEtcdCommand())
	case "kube-apiserver":
		exit(apiserver.NewAPIServerCommand())
	case "kube-controller-manager":
		exit(controllermanager.NewControllerManagerCommand())
	case "kubectl":
		if err := cli.RunNoErrOutput(kubectl.NewDefaultKubectlCommand()); err != nil {
			kubectlutil.CheckErr(err)
		}
	case "helm":
		runHelm()
	default:
		return false
	}
	return true
}

func exit(command *cobra.Command) {
	os.Exit(cli.Run(command))
}
