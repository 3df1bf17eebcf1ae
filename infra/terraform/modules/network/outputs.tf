output "vpc_id" {
  description = "Id of the VPC."
  value       = aws_vpc.this.id
}

output "vpc_arn" {
  description = "ARN of the VPC."
  value       = aws_vpc.this.arn
}

output "public_subnet_ids" {
  description = "Subnets of internet-facing load balancers."
  value       = [for key in local.zone_keys : aws_subnet.public[key].id]
}

output "private_subnet_ids" {
  description = "Subnets of nodes and pods."
  value       = [for key in local.zone_keys : aws_subnet.private[key].id]
}

output "data_subnet_ids" {
  description = "Subnets of database, cache and Kafka."
  value       = [for key in local.zone_keys : aws_subnet.data[key].id]
}

output "public_cidrs" {
  description = "For the chart: networkPolicy.albSubnetCidrs (internet-facing)."
  value       = [for key in local.zone_keys : aws_subnet.public[key].cidr_block]
}

output "private_cidrs" {
  description = "For the chart: networkPolicy.albSubnetCidrs (internal) and egress.vpcEndpointCidrs."
  value       = [for key in local.zone_keys : aws_subnet.private[key].cidr_block]
}

output "data_cidrs" {
  description = "For the chart: networkPolicy.egress.{database,redis,kafka}Cidrs."
  value       = [for key in local.zone_keys : aws_subnet.data[key].cidr_block]
}

output "nat_gateway_ids" {
  description = "NAT gateway of each zone that has one."
  value       = { for key, gateway in aws_nat_gateway.this : key => gateway.id }
}

output "nat_addresses" {
  description = "Public addresses that outgoing requests come from: give them to the payment provider."
  value       = [for address in values(aws_eip.nat) : address.public_ip]
}

output "endpoint_services" {
  description = "Interface endpoints that exist."
  value       = sort([for endpoint in values(aws_vpc_endpoint.interface) : endpoint.service_name])
}
