# Private API, IAM entries only, IMDSv2 with one hop, encrypted disks, add-ons in the right order.

mock_provider "aws" {
  source          = "../../tests/mocks"
  override_during = plan
}

variables {
  name               = "orders-test"
  account_id         = "111122223333"
  node_instance_type = "m7g.large"
  workload_nodes     = { min = 2, max = 4 }
  subnet_ids         = ["subnet-a", "subnet-b", "subnet-c"]
  kms_key_arn        = "arn:aws:kms:us-east-1:111122223333:key/00000000-0000-0000-0000-000000000000"
  logs_kms_key_arn   = "arn:aws:kms:us-east-1:111122223333:key/00000000-0000-0000-0000-000000000000"
  log_retention_days = 90
  access             = { deploy = { principal_arn = "arn:aws:iam::111122223333:role/gha-apply-dev", policy = "AmazonEKSEditPolicy", namespaces = ["orders"], groups = ["plumbline:deployers"] }, admin = { principal_arn = "arn:aws:iam::111122223333:role/admin", policy = "AmazonEKSClusterAdminPolicy", namespaces = [], groups = [] } }
}

run "cluster" {
  command = plan

  assert {
    condition     = aws_eks_cluster.this.access_config[0].authentication_mode == "API" && !aws_eks_cluster.this.access_config[0].bootstrap_cluster_creator_admin_permissions
    error_message = "access entries only, the creator is nobody"
  }

  assert {
    condition     = aws_eks_cluster.this.vpc_config[0].endpoint_private_access && !aws_eks_cluster.this.vpc_config[0].endpoint_public_access
    error_message = "the API server is private"
  }

  assert {
    condition     = length(aws_eks_cluster.this.enabled_cluster_log_types) == 5
    error_message = "five kinds of control plane logs"
  }

  assert {
    condition     = contains(aws_eks_cluster.this.encryption_config[0].resources, "secrets")
    error_message = "Kubernetes secrets are encrypted with our key"
  }

  assert {
    condition     = aws_eks_cluster.this.upgrade_policy[0].support_type == "STANDARD" && aws_eks_cluster.this.zonal_shift_config[0].enabled
    error_message = "standard support, zonal shift on"
  }

  assert {
    condition     = !aws_eks_cluster.this.bootstrap_self_managed_addons
    error_message = "add-ons are ours"
  }
}

run "nodes" {
  command = plan

  assert {
    condition     = alltrue([for template in values(aws_launch_template.node) : template.metadata_options[0].http_tokens == "required" && template.metadata_options[0].http_put_response_hop_limit == 1])
    error_message = "pods cannot reach the node's credentials"
  }

  assert {
    condition     = alltrue([for template in values(aws_launch_template.node) : template.block_device_mappings[0].ebs[0].encrypted == "true" && template.block_device_mappings[0].ebs[0].volume_type == "gp3"])
    error_message = "disks are encrypted gp3"
  }

  assert {
    condition     = alltrue([for group in values(aws_eks_node_group.this) : group.ami_type == "AL2023_ARM_64_STANDARD"])
    error_message = "AL2023 on arm64"
  }

  assert {
    condition     = one(aws_eks_node_group.this["system"].taint).key == "CriticalAddonsOnly" && length(aws_eks_node_group.this["workload"].taint) == 0
    error_message = "the service does not run on system nodes"
  }

  assert {
    condition     = jsondecode(aws_eks_addon.before_nodes["vpc-cni"].configuration_values).enableNetworkPolicy == "true"
    error_message = "network policies are enforced"
  }

  assert {
    condition     = toset(concat(keys(aws_eks_addon.before_nodes), keys(aws_eks_addon.on_nodes))) == toset(["vpc-cni", "kube-proxy", "eks-pod-identity-agent", "coredns", "metrics-server"])
    error_message = "the add-ons"
  }
}

run "access" {
  command = plan

  assert {
    condition     = aws_eks_access_policy_association.this["deploy"].access_scope[0].type == "namespace" && contains(aws_eks_access_policy_association.this["deploy"].access_scope[0].namespaces, "orders")
    error_message = "the pipeline edits one namespace"
  }

  assert {
    condition     = endswith(aws_eks_access_policy_association.this["deploy"].policy_arn, "/AmazonEKSEditPolicy")
    error_message = "and is no administrator"
  }

  assert {
    condition     = aws_eks_access_policy_association.this["admin"].access_scope[0].type == "cluster"
    error_message = "administrators: the whole cluster"
  }

  assert {
    condition     = jsondecode(aws_iam_role.ebs_csi.assume_role_policy).Statement[0].Condition.ArnEquals["aws:SourceArn"] == aws_eks_cluster.this.arn
    error_message = "the disk driver's role belongs to this cluster"
  }
}

run "refuses_the_world" {
  command = plan

  variables {
    public_access_cidrs = ["0.0.0.0/0"]
  }

  expect_failures = [var.public_access_cidrs]
}

run "refuses_an_intel_node" {
  command = plan

  variables {
    node_instance_type = "m7i.large"
  }

  expect_failures = [var.node_instance_type]
}
