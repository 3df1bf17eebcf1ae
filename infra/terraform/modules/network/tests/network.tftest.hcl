# Three zones, three tiers, no way out of the data tier, flow logs of one minute.

mock_provider "aws" {
  source          = "../../tests/mocks"
  override_during = plan
}

variables {
  name                = "orders-test"
  account_id          = "111122223333"
  region              = "us-east-1"
  cidr                = "10.20.0.0/16"
  az_ids              = ["use1-az1", "use1-az2", "use1-az4"]
  nat_gateway_count   = 3
  interface_endpoints = ["ecr.api", "eks-auth"]
  log_retention_days  = 90
  logs_kms_key_arn    = "arn:aws:kms:us-east-1:111122223333:key/00000000-0000-0000-0000-000000000000"
}

run "tiers" {
  command = plan

  assert {
    condition     = length(aws_subnet.public) == 3 && length(aws_subnet.private) == 3 && length(aws_subnet.data) == 3
    error_message = "three tiers in three zones"
  }

  assert {
    condition     = length(distinct(concat(output.public_cidrs, output.private_cidrs, output.data_cidrs))) == 9
    error_message = "no two subnets share a range"
  }

  assert {
    condition     = alltrue([for cidr in output.private_cidrs : endswith(cidr, "/20")])
    error_message = "pods get /20"
  }

  assert {
    condition     = alltrue([for subnet in values(aws_subnet.public) : !subnet.map_public_ip_on_launch])
    error_message = "nothing gets a public address by accident"
  }

  assert {
    condition     = aws_subnet.public["a"].tags["kubernetes.io/role/elb"] == "1" && aws_subnet.private["a"].tags["kubernetes.io/role/internal-elb"] == "1"
    error_message = "the load balancer controller finds its subnets by these tags"
  }

  assert {
    condition     = length(aws_nat_gateway.this) == 3 && length(aws_route.private_nat) == 3
    error_message = "a NAT gateway and a way out a zone"
  }

  assert {
    condition     = length(aws_default_security_group.this.ingress) == 0 && length(aws_default_security_group.this.egress) == 0
    error_message = "the default group allows nothing"
  }
}

run "data_tier_is_closed" {
  command = plan

  assert {
    condition     = alltrue([for rule in values(aws_network_acl_rule.data) : rule.cidr_block == "10.20.0.0/16" && rule.from_port == 1024 && rule.protocol == "tcp"])
    error_message = "only TCP from 1024 up, inside the VPC"
  }

  assert {
    condition     = aws_vpc_endpoint.s3.vpc_endpoint_type == "Gateway" && length(aws_vpc_endpoint.interface) == 2
    error_message = "S3 by gateway, the named ones by interface"
  }

  assert {
    condition     = aws_vpc_security_group_ingress_rule.endpoints.from_port == 443 && aws_vpc_security_group_ingress_rule.endpoints.to_port == 443
    error_message = "endpoints take HTTPS only"
  }
}

run "flow_logs" {
  command = plan

  assert {
    condition     = aws_flow_log.this.max_aggregation_interval == 60 && aws_flow_log.this.traffic_type == "ALL"
    error_message = "all traffic, one-minute windows"
  }

  assert {
    condition     = aws_cloudwatch_log_group.flow.kms_key_id != null && aws_cloudwatch_log_group.flow.retention_in_days == 90
    error_message = "encrypted, and not for ever"
  }

  assert {
    condition     = jsondecode(aws_iam_role.flow.assume_role_policy).Statement[0].Condition.StringEquals["aws:SourceAccount"] == "111122223333"
    error_message = "no other account can use the role"
  }
}

run "one_nat_gateway_serves_all_zones" {
  command = plan

  variables {
    nat_gateway_count = 1
  }

  assert {
    condition     = length(aws_nat_gateway.this) == 1 && length(aws_route.private_nat) == 3
    error_message = "every zone still has a way out"
  }
}

run "refuses_two_nat_gateways" {
  command = plan

  variables {
    nat_gateway_count = 2
  }

  expect_failures = [var.nat_gateway_count]
}

run "refuses_zone_names" {
  command = plan

  variables {
    az_ids = ["us-east-1a", "us-east-1b", "us-east-1c"]
  }

  expect_failures = [var.az_ids]
}
